//! The `stopover` program: a thin wrapper around the library.

fn main() -> std::process::ExitCode {
    stopover::cli::run()
}
