//! Compiles the messages with `protox`, so that no system `protoc` is needed.

use std::error::Error;

use prost_types::field_descriptor_proto::Type;

/// The package of the operator's API, whose messages have serde: bytes are hex, and fields that are left out have their defaults.
const OPERATOR: &str = ".longhand.operator.v1";
const DERIVE_SERDE: &str =
    r#"#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]"#;
const SERDE_DEFAULT: &str = r#"#[cfg_attr(feature = "serde", serde(default))]"#;
const SERDE_HEX: &str = r#"#[cfg_attr(feature = "serde", serde(with = "crate::hex"))]"#;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "signer.proto",
        "command.proto",
        "link.proto",
        "operator.proto",
        "mailbox.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    let mut builder = tonic_prost_build::configure()
        .type_attribute(OPERATOR, DERIVE_SERDE)
        .message_attribute(OPERATOR, SERDE_DEFAULT);
    let operator = descriptors
        .file
        .iter()
        .filter(|file| format!(".{}", file.package()) == OPERATOR);
    for message in operator.flat_map(|file| &file.message_type) {
        let bytes = message.field.iter().filter(|it| it.r#type() == Type::Bytes);
        for field in bytes {
            let path = format!("{OPERATOR}.{}.{}", message.name(), field.name());
            builder = builder.field_attribute(path, SERDE_HEX);
        }
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
