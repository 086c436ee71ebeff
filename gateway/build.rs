//! Compiles the dispatch program for the kernel and leaves it in `OUT_DIR`, where `src/dispatch/kernel.rs` embeds it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const SOURCES: &str = "../cluster/bpf";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("the dispatch program was not built: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let out = std::env::var("OUT_DIR").map_err(|error| format!("OUT_DIR: {error}"))?;
    let object = PathBuf::from(out).join("dispatch.bpf.o");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let mut command = Command::new(&clang);
    command.args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]);
    // Debian keeps <asm/types.h> in a directory per architecture, which clang does not search for this target.
    let include = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    if Path::new(&include).is_dir() {
        command.arg(format!("-I{include}"));
    }
    command.arg("-c").arg(Path::new(SOURCES).join("dispatch.bpf.c")).arg("-o").arg(&object);
    let output = command.output().map_err(|error| {
        format!(
            "{clang} cannot be run ({error}). Install it: apt-get install clang llvm libbpf-dev linux-libc-dev \
             (or name another with CLANG=…)"
        )
    })?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        let advice = if messages.contains("bpf_helpers.h") {
            " Install the headers: apt-get install libbpf-dev linux-libc-dev"
        } else {
            ""
        };
        return Err(format!("{clang} failed.{advice}\n{messages}"));
    }
    Ok(())
}
