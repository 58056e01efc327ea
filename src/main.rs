//! The `stopover` program: a thin door to the library.

fn main() -> std::process::ExitCode {
    stopover::cli::run()
}
