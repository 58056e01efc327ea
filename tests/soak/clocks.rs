//! Wrong wall clocks: builds a library that falsifies the time and preloads it into daemons.
//!
//! Where that is not possible, this prints a warning and the daemons run with the true time.

use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Clone)]
pub struct WallClocks(Option<PathBuf>);

impl WallClocks {
    /// Builds the library with the compiler that built this program.
    pub fn build(work: &Path) -> Self {
        if !cfg!(target_os = "linux") {
            println!("!!!! NOT TESTED: wrong wall clocks need Linux and LD_PRELOAD");
            return Self(None);
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/soak/wall_clock.rs");
        let library = work.join("libwall_clock.so");
        let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let built = Command::new(compiler)
            .args([
                "--edition",
                "2024",
                "--crate-type",
                "cdylib",
                "-O",
                "-C",
                "panic=abort",
            ])
            .arg(source)
            .arg("-o")
            .arg(&library)
            .output();
        match built {
            Ok(output) if output.status.success() => Self(Some(library)),
            Ok(output) => {
                let message = String::from_utf8_lossy(&output.stderr);
                println!(
                    "!!!! NOT TESTED: wrong wall clocks: the library does not build: {message}"
                );
                Self(None)
            }
            Err(error) => {
                println!("!!!! NOT TESTED: wrong wall clocks: rustc cannot be run: {error}");
                Self(None)
            }
        }
    }

    pub fn are_available(&self) -> bool {
        self.0.is_some()
    }

    pub fn set(&self, command: &mut Command, offset: i64) {
        if let Some(library) = &self.0 {
            command
                .env("LD_PRELOAD", library)
                .env("SOAK_WALL_OFFSET", offset.to_string());
        }
    }
}

/// Seconds since 1970 of an HTTP date, `Tue, 24 Nov 2026 14:51:08 GMT`.
pub fn seconds_of(date: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let words: Vec<&str> = date.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, _] = words[..] else {
        return None;
    };
    let month = MONTHS.iter().position(|m| *m == month)? as i64 + 1;
    let (year, day): (i64, i64) = (year.parse().ok()?, day.parse().ok()?);
    // Days since 1970 in the proleptic Gregorian calendar, years counted from March.
    let shifted = if month > 2 { year } else { year - 1 };
    let months = (month + 9) % 12;
    let days =
        365 * shifted + shifted / 4 - shifted / 100 + shifted / 400 + (153 * months + 2) / 5 + day
            - 1
            - 719_468;
    let of_day = |text: &str| text.parse::<i64>().ok();
    Some(days * 86_400 + of_day(hour)? * 3600 + of_day(minute)? * 60 + of_day(second)?)
}
