//! Writes libtorch's folder into the programs, so that they start without `LD_LIBRARY_PATH`.

use std::{env, path::Path};

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    if let Ok(libtorch) = env::var("LIBTORCH") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", Path::new(&libtorch).join("lib").display());
    }
}
