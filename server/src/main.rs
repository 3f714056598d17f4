//! The binary.

fn main() -> std::process::ExitCode {
    tmomi_server::cli::main()
}
