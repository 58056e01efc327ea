//! Empty: cargo requires a library or a program beside a benchmark.
