//! Compiles the wire protocol and tells the linker where libtorch lies.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    compile_protocol()?;
    // Fuzz targets train nothing, and a sanitizer wants to be the first that runs.
    if env::var_os("CARGO_FEATURE_FUZZING").is_none() {
        compile_environment();
    }
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let libtorch = env::var("LIBTORCH").map(PathBuf::from).ok();
    if let Some(libtorch) = &libtorch {
        link_libtorch(libtorch);
    }
    let version = libtorch.and_then(|libtorch| fs::read_to_string(libtorch.join("build-version")).ok());
    println!("cargo::rustc-env=FEDTUNE_LIBTORCH={}", version.as_deref().map_or("unknown", str::trim));
    Ok(())
}

/// Compiles `proto/` without an installed `protoc`; `bytes` fields stay shared buffers, so a chunk is not copied.
fn compile_protocol() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/federation.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

/// Compiles what runs before any library starts; nothing refers to it, so it is linked whole.
fn compile_environment() {
    let source = "src/cli/environment.c";
    println!("cargo::rerun-if-changed={source}");
    cc::Build::new().file(source).warnings_into_errors(true).link_lib_modifier("+whole-archive").compile("environment");
}

/// Writes libtorch's folder into the program, so that it starts without `LD_LIBRARY_PATH`.
fn link_libtorch(libtorch: &Path) {
    let lib = libtorch.join("lib");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    // CUDA kernels register themselves when their library loads; nothing else refers to it.
    if lib.join("libtorch_cuda.so").exists() {
        println!("cargo::rustc-link-arg=-Wl,--no-as-needed,-ltorch_cuda,--as-needed");
    }
}
