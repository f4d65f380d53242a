//! Compiles the messages with `protox`, so that no system `protoc` is needed.

use std::error::Error;

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
    #[cfg(feature = "grpc")]
    tonic_prost_build::configure().compile_fds(descriptors)?;
    #[cfg(not(feature = "grpc"))]
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
