//! Writes libtorch's folder into the program, so that it starts without `LD_LIBRARY_PATH`.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    if let Ok(libtorch) = env::var("LIBTORCH").map(PathBuf::from) {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", libtorch.join("lib").display());
    }
}
