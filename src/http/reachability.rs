//! Whether other machines can reach this daemon.
//!
//! Does: log which machines can use the configured addresses. Does not: connect to them. Invariant:
//! it only logs.

use std::net::IpAddr;

use crate::config::ServerConfig;

/// Logs how others reach this daemon, or what it forgoes if they cannot.
pub fn report(server: &ServerConfig) {
    let is_loopback = |host: &String| {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
    };
    if server.advertise.is_empty() {
        tracing::info!(
            "server.advertise is empty: where nodes name this daemon by a loopback address, small \
             outputs of several nodes are not gathered here"
        );
    } else if let Some(host) = server.advertised_hosts().find(is_loopback) {
        tracing::warn!(
            "server.advertise names {host}, which is another daemon on every machine: write an \
             address that other machines reach"
        );
    } else if server.listen.ip().to_canonical().is_loopback() {
        tracing::warn!(
            "server.advertise names {}, but server.listen {} accepts connections of this machine \
             only: listen on 0.0.0.0, unless a proxy forwards that address",
            server.advertise.join(", "),
            server.listen
        );
    }
}
