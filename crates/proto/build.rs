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
        "hashmail.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    let operator = descriptors
        .file
        .iter()
        .filter(|file| format!(".{}", file.package()) == OPERATOR);
    let mut hex = Vec::new();
    for message in operator.flat_map(|file| &file.message_type) {
        let bytes = message.field.iter().filter(|it| it.r#type() == Type::Bytes);
        hex.extend(bytes.map(|field| format!("{OPERATOR}.{}.{}", message.name(), field.name())));
    }
    let mut config = prost_build::Config::new();
    config.type_attribute(OPERATOR, DERIVE_SERDE);
    config.message_attribute(OPERATOR, SERDE_DEFAULT);
    for field in hex {
        config.field_attribute(field, SERDE_HEX);
    }
    #[cfg(feature = "grpc")]
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    #[cfg(not(feature = "grpc"))]
    config.compile_fds(descriptors)?;
    Ok(())
}
