//! The environment variables of OpenTelemetry, as settings of `[tracing]`.
//!
//! Does: translate the variables of the specification that concern traces. Does not: check the form
//! of values (`keys`). Invariant: these variables are meant for all programs of a machine, so none
//! of them stops the daemon: if one cannot be used, there is a notice, and all of them are ignored.

use super::Config;
use super::keys;
use super::located::Located;
use super::problem::Origin;
use super::trace_values::TRACES_PATH;
use super::units::format_duration;
use std::time::Duration;

/// How the value of a variable becomes that of a setting.
#[derive(Clone, Copy)]
enum Form {
    Same,
    /// A URL to which the path of traces is added.
    Base,
    /// Milliseconds.
    Millis,
}

/// Variable, setting, form. A later variable wins over an earlier one.
const VARIABLES: [(&str, &str, Form); 12] = [
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "tracing.collector",
        Form::Base,
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "tracing.collector",
        Form::Same,
    ),
    (
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "tracing.protocol",
        Form::Same,
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "tracing.protocol",
        Form::Same,
    ),
    ("OTEL_EXPORTER_OTLP_HEADERS", "tracing.headers", Form::Same),
    (
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "tracing.headers",
        Form::Same,
    ),
    (
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "tracing.export_timeout",
        Form::Millis,
    ),
    (
        "OTEL_RESOURCE_ATTRIBUTES",
        "tracing.resource_attributes",
        Form::Same,
    ),
    ("OTEL_SERVICE_NAME", "tracing.service_name", Form::Same),
    (
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "tracing.max_queue_size",
        Form::Same,
    ),
    (
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        "tracing.max_batch_size",
        Form::Same,
    ),
    (
        "OTEL_BSP_SCHEDULE_DELAY",
        "tracing.export_interval",
        Form::Millis,
    ),
];

/// The settings that the variables make, and messages for the operator.
pub(super) fn settings(variables: &[(String, String)]) -> (Vec<(String, Located)>, Vec<String>) {
    let value = |name: &str| {
        let mut found = variables.iter().filter(|(known, _)| known == name);
        // An empty variable is one that is not set.
        found
            .next()
            .map(|(_, value)| value.trim())
            .filter(|value| !value.is_empty())
    };
    let endpoints = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ];
    let is_on = endpoints.iter().any(|name| value(name).is_some());
    let is_disabled = value("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let exports = value("OTEL_TRACES_EXPORTER").is_none_or(|exporter| exporter == "otlp");
    if is_disabled || !exports || !is_on {
        return Default::default();
    }
    let mut settings = Vec::new();
    for (variable, key, form) in VARIABLES {
        if let Some(value) = value(variable) {
            settings.push((variable, key.to_owned(), convert(value, form)));
        }
    }
    if let Some(sampler) = value("OTEL_TRACES_SAMPLER") {
        let ratio = value("OTEL_TRACES_SAMPLER_ARG").unwrap_or("1");
        for (key, value) in sampling(sampler, ratio) {
            settings.push(("OTEL_TRACES_SAMPLER", key.to_owned(), value));
        }
    }
    let refused = settings.iter().filter_map(|(variable, key, value)| {
        let why = refusal(key, value)?;
        Some(format!(
            "environment variable {variable} cannot be used, so no variable of OpenTelemetry is: \
             {why}"
        ))
    });
    let refused: Vec<String> = refused.collect();
    if !refused.is_empty() {
        return (Vec::new(), refused);
    }
    let located = settings.into_iter().map(|(variable, key, value)| {
        let origin = Origin::Environment(variable.to_owned());
        (key, Located::text(&value, &origin))
    });
    (located.collect(), Vec::new())
}

fn convert(value: &str, form: Form) -> String {
    match form {
        Form::Same => value.to_owned(),
        Form::Base => format!("{}{TRACES_PATH}", value.trim_end_matches('/')),
        Form::Millis => {
            let millis = value.parse().map(Duration::from_millis);
            millis.map_or_else(|_| value.to_owned(), format_duration)
        }
    }
}

/// The two settings that correspond to a sampler; for an unknown sampler, an invalid value.
fn sampling(sampler: &str, ratio: &str) -> [(&'static str, String); 2] {
    let (parent_based, root) = match sampler.strip_prefix("parentbased_") {
        Some(root) => ("true", root),
        None => ("false", sampler),
    };
    let ratio = match root {
        "always_on" => "1",
        "always_off" => "0",
        "traceidratio" => ratio,
        unknown => unknown,
    };
    [
        ("tracing.parent_based", parent_based.to_owned()),
        ("tracing.sampling_ratio", ratio.to_owned()),
    ]
}

/// Why a setting cannot have a value.
fn refusal(key: &str, value: &str) -> Option<String> {
    let mut trial = Config::default();
    let key = keys::find(key)?;
    let located = Located::text(value, &Origin::Default);
    let set = (key.set)(&mut trial, &located.raw).and_then(|()| (key.check)(&trial));
    set.err().map(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> (Config, Vec<String>) {
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let (settings, notices) = settings(&owned.collect::<Vec<_>>());
        let mut config = Config::default();
        for (name, located) in settings {
            let set = keys::find(&name).unwrap().set;
            set(&mut config, &located.raw).unwrap();
        }
        (config, notices)
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/x/");

    #[test]
    fn the_endpoint_alone_switches_tracing_on_and_gets_the_path_of_traces() {
        let (config, notices) = of(&[ENDPOINT]);
        let url = config.tracing.collector.unwrap();
        assert_eq!(url.as_str(), "http://collector:4318/x/v1/traces");
        assert!(notices.is_empty());
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other:4318/y");
        let url = of(&[traces, ENDPOINT]).0.tracing.collector.unwrap();
        assert_eq!(url.as_str(), "http://other:4318/y");
    }

    #[test]
    fn nothing_is_set_without_an_endpoint_or_where_tracing_is_disabled() {
        let name = ("OTEL_SERVICE_NAME", "x");
        for variables in [
            vec![name],
            vec![name, ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")],
            vec![name, ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")],
            vec![name, (ENDPOINT.0, " ")],
        ] {
            let (config, notices) = of(&variables);
            assert!(config.tracing.collector.is_none(), "{variables:?}");
            assert_eq!(config.tracing.service_name, "stopover");
            assert!(notices.is_empty());
        }
    }

    #[test]
    fn a_sampler_is_a_ratio_and_whether_the_caller_decides() {
        let sampled = |sampler, argument| {
            let sampler = ("OTEL_TRACES_SAMPLER", sampler);
            let argument = ("OTEL_TRACES_SAMPLER_ARG", argument);
            let tracing = of(&[ENDPOINT, sampler, argument]).0.tracing;
            (tracing.parent_based, tracing.sampling_ratio)
        };
        assert_eq!(sampled("always_off", "0.5"), (false, 0.0));
        assert_eq!(sampled("traceidratio", "0.25"), (false, 0.25));
        assert_eq!(sampled("parentbased_traceidratio", "0.1"), (true, 0.1));
        assert_eq!(sampled("parentbased_always_on", "0.1"), (true, 1.0));
    }

    #[test]
    fn a_variable_that_cannot_be_used_is_named_and_stops_no_daemon() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hush"),
        ] {
            let ratio = ("OTEL_TRACES_SAMPLER_ARG", "2");
            let (config, notices) = of(&[ENDPOINT, (name, value), ratio]);
            assert!(config.tracing.collector.is_none(), "{name}");
            assert!(
                notices.len() == 1 && notices[0].contains(name),
                "{notices:?}"
            );
            assert!(!notices[0].contains("hush"), "{notices:?}");
        }
    }

    #[test]
    fn times_are_milliseconds_and_headers_those_of_the_specification() {
        let (config, _) = of(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b"),
            ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=p-1"),
        ]);
        let tracing = config.tracing;
        assert_eq!(tracing.export_timeout, Duration::from_millis(2500));
        assert_eq!(tracing.headers[0].1.expose(), "a b");
        let expected = [("k8s.pod.name".to_owned(), "p-1".to_owned())];
        assert_eq!(tracing.resource_attributes, expected);
    }
}
