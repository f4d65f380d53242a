//! Compiles the messages with `protox`, so that no system `protoc` is needed, and gives each field the form that it has in
//! lnd's JSON: 64-bit numbers as text, bytes as base64, enums by name, and on reading the name in camel case too.

use std::error::Error;

use prost_build::Config;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};

const FILES: [&str; 4] = [
    "lightning.proto",
    "router.proto",
    "invoices.proto",
    "walletkit.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let mut config = Config::new();
    config.type_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]");
    config.message_attribute(".", "#[serde(default)]");
    for file in &descriptors.file {
        for message in &file.message_type {
            attributes(&mut config, &format!(".{}", file.package()), message);
        }
    }
    config.compile_fds(descriptors)?;
    Ok(())
}

fn attributes(config: &mut Config, scope: &str, message: &DescriptorProto) {
    let path = format!("{scope}.{}", message.name());
    for field in &message.field {
        let place = format!("{path}.{}", field.name());
        if let Some(with) = form(field, message) {
            config.field_attribute(&place, format!("#[serde(with = \"crate::json::{with}\")]"));
        }
        if field.json_name() != field.name() {
            let alias = format!("#[serde(alias = \"{}\")]", field.json_name());
            config.field_attribute(&place, alias);
        }
        // A Rust keyword would be written `r#type`.
        config.field_attribute(&place, format!("#[serde(rename = \"{}\")]", field.name()));
    }
    for nested in &message.nested_type {
        let is_map = nested.options.as_ref().is_some_and(|it| it.map_entry());
        if !is_map {
            attributes(config, &path, nested);
        }
    }
}

/// The module of `json.rs` that reads and writes the field; none where serde's own form is lnd's.
fn form(field: &FieldDescriptorProto, message: &DescriptorProto) -> Option<String> {
    let is_repeated = field.label() == Label::Repeated;
    match field.r#type() {
        Type::Int64 | Type::Uint64 if is_repeated => Some("many_int64".into()),
        Type::Int64 | Type::Uint64 => Some("int64".into()),
        Type::Int32 | Type::Uint32 => Some("int32".into()),
        Type::Bool => Some("boolean".into()),
        Type::Bytes => Some("bytes".into()),
        Type::Enum => {
            let module = enum_module(field.type_name());
            Some(format!("enums::{module}"))
        }
        Type::Message if is_repeated => {
            let entry = field.type_name().rsplit('.').next();
            let mut nested = message.nested_type.iter();
            let entry = nested.find(|it| Some(it.name()) == entry)?;
            let value = entry.field.iter().find(|it| it.name() == "value")?;
            (value.r#type() == Type::Bytes).then(|| "map_of_bytes".into())
        }
        _ => None,
    }
}

/// `.lnrpc.Payment.PaymentStatus` is `payment_status`; the one name that two packages have, with its package in front.
fn enum_module(type_name: &str) -> String {
    let name = type_name.rsplit('.').next().unwrap_or(type_name);
    let mut module = String::new();
    for (at, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && at > 0 {
            module.push('_');
        }
        module.push(c.to_ascii_lowercase());
    }
    match type_name.starts_with(".walletrpc.") {
        true => format!("wallet_{module}"),
        false => module,
    }
}
