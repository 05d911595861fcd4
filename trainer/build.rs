//! Compiles the wire protocol and tells the linker where libtorch lies.

use std::{env, error::Error, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    compile_protocol()?;
    link_libtorch();
    Ok(())
}

/// Compiles `proto/` without an installed `protoc`; `bytes` fields stay shared buffers, so a chunk is not copied.
fn compile_protocol() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/federation.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

/// Writes libtorch's folder into the program, so that it starts without `LD_LIBRARY_PATH`.
fn link_libtorch() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let Ok(libtorch) = env::var("LIBTORCH") else { return };
    let lib = Path::new(&libtorch).join("lib");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    // CUDA kernels register themselves when their library loads; nothing else refers to it.
    if lib.join("libtorch_cuda.so").exists() {
        println!("cargo::rustc-link-arg=-Wl,--no-as-needed,-ltorch_cuda,--as-needed");
    }
}
