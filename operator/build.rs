//! Generates the messages and services of openOBD from their compiled description, without protoc.
//!
//! `proto/compile.py` compiles the description after a change; `docs/adr/0021-openobd-code.md` has the reasons.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[cfg(feature = "openobd")]
    generate()?;
    Ok(())
}

#[cfg(feature = "openobd")]
fn generate() -> Result<(), Box<dyn std::error::Error>> {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    const COMPILED: &str = "proto/openobd.binpb";

    println!("cargo::rerun-if-changed={COMPILED}");
    let descriptors = FileDescriptorSet::decode(std::fs::read(COMPILED)?.as_slice())?;
    tonic_prost_build::configure().build_client(false).build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
