//! Requests generated from the API's own description: none may cause a server error.
//!
//! For each operation of `/openapi.json`, as a running daemon serves it, requests are drawn from a
//! seed: parameters and bodies that conform to their schemas, and some that violate them. A
//! request that is answered with 5xx, or with an error that is not a problem document, fails the
//! test and is printed. `STOPOVER_TEST_HTTP_FUZZ=requests:seed` sets the number and the seed.

use serde_json::{Value, json};
use stopover::runtime::Random;

use crate::support::frames::batch;
use crate::support::raw::{RawAnswer, RawClient};
use crate::support::{BaseFolder, TestServer, ok_json, sink};

const METHODS: [&str; 4] = ["get", "put", "post", "delete"];
const NUMBERS: [&str; 16] = [
    "0",
    "1",
    "2",
    "3",
    "7",
    "127",
    "128",
    "1048575",
    "1048576",
    "4294967040",
    "4294967296",
    "-1",
    "18446744073709551616",
    "1e3",
    "%31",
    "",
];
const NAMES: [&str; 9] = [
    "gone",
    "never",
    "..",
    "%2e%2e%2fetc",
    "%00",
    "%C3%A9",
    "-f",
    "a.b",
    "%ff",
];

struct Fuzz {
    random: Random,
    document: Value,
    /// An existing exchange, and a valid batch and handle to start from.
    exchange: String,
    batch: Vec<u8>,
    handle: String,
}

/// One request as it is sent.
struct Drawn {
    line: String,
    content_type: Option<String>,
    body: Vec<u8>,
}

impl Fuzz {
    fn below(&self, n: usize) -> usize {
        (self.random.next_u64() % n as u64) as usize
    }

    fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a>(&self, items: &[&'a str]) -> &'a str {
        items[self.below(items.len())]
    }

    /// A value for a parameter of this schema, in most cases a valid one.
    fn parameter(&self, schema: &Value) -> String {
        if schema["type"] == "integer" {
            let likely = if self.one_in(3) {
                &NUMBERS[..]
            } else {
                &NUMBERS[..3]
            };
            return self.pick(likely).to_owned();
        }
        match self.below(4) {
            0 => self.pick(&NAMES).to_owned(),
            1 => "x".repeat(self.below(300)),
            _ => self.exchange.clone(),
        }
    }

    fn target(&self, path: &str, operation: &Value) -> String {
        let mut target = path.to_owned();
        let mut query = Vec::new();
        let none = Vec::new();
        for parameter in operation["parameters"].as_array().unwrap_or(&none) {
            let (name, value) = (
                parameter["name"].as_str().unwrap(),
                self.parameter(&parameter["schema"]),
            );
            match parameter["in"].as_str().unwrap() {
                "path" => target = target.replace(&format!("{{{name}}}"), &value),
                "query" if !self.one_in(3) => query.push(format!("{name}={value}")),
                _ => {}
            }
        }
        if self.one_in(12) {
            query.push("unknown=1".to_owned());
        }
        if self.one_in(12)
            && let Some(first) = query.first().cloned()
        {
            query.push(first);
        }
        if query.is_empty() {
            return target;
        }
        format!("{target}?{}", query.join("&"))
    }

    /// JSON that conforms to a schema, now and then of another shape.
    fn json(&self, schema: &Value, depth: usize) -> Value {
        if self.one_in(12) || depth > 6 {
            let odd = [
                json!(null),
                json!(-1),
                json!("1"),
                json!([[]]),
                json!({"x": {}}),
            ];
            return odd[self.below(odd.len())].clone();
        }
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.rsplit('/').next().unwrap();
            return self.json(&self.document["components"]["schemas"][name], depth + 1);
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            return self.json(&choices[self.below(choices.len())], depth + 1);
        }
        match schema["type"].as_str() {
            Some("object") => self.object(schema, depth),
            Some("array") => {
                let items = schema.get("items").or(schema["prefixItems"].get(0));
                let item = items.cloned().unwrap_or_else(|| json!({"type": "integer"}));
                let count = [0, 1, 2, 2, 3, 40][self.below(6)];
                (0..count).map(|_| self.json(&item, depth + 1)).collect()
            }
            Some("integer") => {
                let numbers = [
                    0,
                    0,
                    1,
                    1,
                    2,
                    3,
                    127,
                    128,
                    65_536,
                    u64::from(u32::MAX),
                    u64::MAX,
                ];
                json!(numbers[self.below(numbers.len())])
            }
            Some("boolean") => json!(self.one_in(2)),
            _ => json!("text"),
        }
    }

    fn object(&self, schema: &Value, depth: usize) -> Value {
        let mut object = serde_json::Map::new();
        for (name, property) in schema["properties"].as_object().unwrap() {
            if !self.one_in(12) {
                object.insert(name.clone(), self.json(property, depth + 1));
            }
        }
        if self.one_in(12) {
            object.insert("unknown".to_owned(), json!(1));
        }
        Value::Object(object)
    }

    /// Valid bytes with some of them changed, duplicated or cut off.
    fn damaged(&self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len().max(1));
            match self.below(3) {
                0 if !bytes.is_empty() => bytes[at] = self.random.next_u64() as u8,
                1 => bytes.truncate(at),
                _ => bytes.extend_from_within(..at.min(bytes.len())),
            }
        }
        bytes
    }

    fn body(&self, operation: &Value) -> (Option<String>, Vec<u8>) {
        let Some(content) = operation["requestBody"]["content"].as_object() else {
            let stray = if self.one_in(8) {
                b"stray".to_vec()
            } else {
                Vec::new()
            };
            return (None, stray);
        };
        let (media_type, described) = content.iter().nth(self.below(content.len())).unwrap();
        let body = match media_type.as_str() {
            "application/json" => {
                let text = self.json(&described["schema"], 0).to_string();
                if self.one_in(8) {
                    self.damaged(text.as_bytes())
                } else {
                    text.into_bytes()
                }
            }
            "text/plain" => self.damaged(self.handle.as_bytes()),
            _ => self.damaged(&self.batch),
        };
        let odd = self.one_in(12).then(|| "text/html; charset=x".to_owned());
        (Some(odd.unwrap_or_else(|| media_type.clone())), body)
    }

    fn draw(&self, method: &str, path: &str, operation: &Value) -> Drawn {
        let (content_type, body) = self.body(operation);
        let mut target = self.target(path, operation);
        if method == "delete" && !self.one_in(8) {
            // Most deletes target another exchange, so that the other operations find theirs.
            target = target.replace(&self.exchange, "gone");
        }
        let method = if self.one_in(40) { "PATCH" } else { method };
        Drawn {
            line: format!("{} {target}", method.to_uppercase()),
            content_type,
            body,
        }
    }
}

async fn send(server: &TestServer, drawn: &Drawn) -> RawAnswer {
    let mut client = RawClient::connect(server.address).await;
    let length = drawn.body.len().to_string();
    let mut headers = vec![("content-length", length.as_str())];
    if let Some(content_type) = &drawn.content_type {
        headers.push(("content-type", content_type));
    }
    client.send_head(&drawn.line, &headers).await;
    client.send(&drawn.body).await;
    client.answer().await
}

/// Creates an exchange with a finished attempt and returns a handle of it.
async fn fill(server: &TestServer, exchange: &str) -> String {
    server.announce(exchange, 3).await;
    let sink = sink(exchange, 0, 0);
    server
        .add(&sink, 0, batch(&[(0, b"one"), (1, b"two")]))
        .await;
    ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
    let handles = server.handles(exchange, &json!([[0, 0]]), 1 << 20).await;
    handles[0]["handle"].as_str().unwrap().to_owned()
}

fn requests_and_seed() -> (usize, u64) {
    let given = std::env::var("STOPOVER_TEST_HTTP_FUZZ").unwrap_or_default();
    let (requests, seed) = given.split_once(':').unwrap_or((&given, ""));
    (requests.parse().unwrap_or(1500), seed.parse().unwrap_or(1))
}

#[tokio::test]
async fn no_request_generated_from_the_openapi_document_causes_a_server_error() {
    let base_folder = BaseFolder::new();
    let server = TestServer::open(&base_folder.config()).await;
    let (requests, seed) = requests_and_seed();
    let mut fuzz = Fuzz {
        random: Random::seeded(seed),
        document: ok_json(server.get("/openapi.json").await).await,
        batch: batch(&[(0, b"some page"), (2, b"another")]),
        exchange: String::new(),
        handle: String::new(),
    };
    let document = fuzz.document.clone();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            if let Some(operation) = methods.get(method) {
                operations.push((method, path.as_str(), operation));
            }
        }
    }
    assert!(operations.len() >= 15, "{} operations", operations.len());
    let mut answered = std::collections::BTreeMap::<(&str, &str), (u32, u32)>::new();
    for n in 0..requests {
        if n % 150 == 0 {
            fuzz.exchange = format!("f{n}");
            fuzz.handle = fill(&server, &fuzz.exchange).await;
        }
        let (method, path, operation) = operations[n % operations.len()];
        let drawn = fuzz.draw(method, path, operation);
        let answer = send(&server, &drawn).await;
        let described = || {
            let body = String::from_utf8_lossy(&drawn.body);
            format!(
                "request {n} of seed {seed}: {}\n{body}\n{answer:?}",
                drawn.line
            )
        };
        // Where the damage hits the id of the base directory, a handle looks like one of another
        // fleet, which is answered with 503 so that other daemons are asked.
        let of_another_fleet =
            answer.status == 503 && answer.problem_type() == "unknown-base-directory";
        assert!(answer.status < 500 || of_another_fleet, "{}", described());
        let counts = answered.entry((method, path)).or_default();
        if answer.status < 400 {
            counts.0 += 1;
        } else {
            counts.1 += 1;
            assert!(!answer.problem_type().is_empty(), "{}", described());
        }
    }
    println!("{requests} requests: {answered:?}");
    let accepted = answered.values().filter(|(taken, _)| *taken > 0).count();
    assert!(
        accepted >= 12,
        "too few operations were accepted: {answered:?}"
    );
    server.expect_no_request_in_progress().await;
    server.shut_down().await;
}
