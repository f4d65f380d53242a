//! Reading what others encoded, without trust.

use lightning::ln::chan_utils::ChannelTransactionParameters;
use lightning::util::ser::{Readable, ReadableArgs};

use crate::rules::Refused;

/// Reads one LDK-encoded value that fills `bytes`.
pub(crate) fn read<T: Readable>(mut bytes: &[u8]) -> Result<T, Refused> {
    let value =
        T::read(&mut bytes).map_err(|_| Refused::malformed("an LDK encoding cannot be read"))?;
    if bytes.is_empty() {
        Ok(value)
    } else {
        Err(Refused::malformed(
            "bytes are left over after an LDK encoding",
        ))
    }
}

/// Reads channel parameters.
pub(crate) fn read_parameters(mut bytes: &[u8]) -> Result<ChannelTransactionParameters, Refused> {
    <ChannelTransactionParameters as ReadableArgs<Option<u64>>>::read(&mut bytes, None)
        .map_err(|_| Refused::malformed("the channel parameters cannot be read"))
}
