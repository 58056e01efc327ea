//! A minimal client of Trino's `/v1/statement` protocol.
//!
//! Does: follow `nextUri` to the end and report a failed query with Trino's error. Does not:
//! compare rows (`compare.rs`). A query that is dropped before its end is left to Trino's client
//! timeout; the scenarios always run their queries to the end.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::StatusCode;
use serde_json::Value;

/// One row, each column as in Trino's JSON. Decimals and dates are strings, compared exactly.
pub type Row = Vec<Value>;

#[derive(Clone, Debug)]
pub struct Session {
    pub catalog: String,
    pub schema: String,
    pub properties: Vec<(String, String)>,
}

impl Session {
    pub fn new(schema: &str, retry_policy: &str) -> Self {
        let session = Self {
            catalog: "tpch".to_owned(),
            schema: schema.to_owned(),
            properties: Vec::new(),
        };
        session.with("retry_policy", retry_policy)
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.properties.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn in_catalog(mut self, name: &str) -> Self {
        name.clone_into(&mut self.catalog);
        self
    }

    fn header(&self) -> String {
        let pairs: Vec<_> = self
            .properties
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        pairs.join(",")
    }
}

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    pub fn new(port: u16) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(60))
            .no_proxy()
            .build()?;
        Ok(Self {
            http,
            base: format!("http://127.0.0.1:{port}"),
        })
    }

    pub async fn start(&self, sql: &str, session: &Session) -> Result<RunningQuery> {
        let request = self
            .http
            .post(format!("{}/v1/statement", self.base))
            .header("X-Trino-User", "test")
            .header("X-Trino-Source", "stopover-test")
            .header("X-Trino-Catalog", &session.catalog)
            .header("X-Trino-Schema", &session.schema)
            .header("X-Trino-Session", session.header())
            .body(sql.to_owned());
        let first: Value = request.send().await?.error_for_status()?.json().await?;
        let id = first["id"]
            .as_str()
            .context("Trino's answer has no query id")?
            .to_owned();
        let mut query = RunningQuery {
            http: self.http.clone(),
            id,
            next: None,
            rows: Vec::new(),
        };
        query.append(first)?;
        Ok(query)
    }

    pub async fn run(&self, sql: &str, session: &Session) -> Result<Vec<Row>> {
        self.start(sql, session).await?.finish().await
    }

    /// The tasks of a query: where they run and in which state. A query has none before it is
    /// dispatched; for a moment the coordinator then answers as if it did not exist.
    pub async fn tasks(&self, id: &str) -> Result<Vec<Task>> {
        let url = format!("{}/v1/query/{id}", self.base);
        let answer = self
            .http
            .get(url)
            .header("X-Trino-User", "test")
            .send()
            .await?;
        let mut tasks = Vec::new();
        if answer.status() != StatusCode::GONE {
            collect_tasks(&answer.error_for_status()?.json().await?, false, &mut tasks);
        }
        Ok(tasks)
    }

    /// Everything that Trino knows of a query.
    pub async fn info(&self, id: &str) -> Result<Value> {
        let url = format!("{}/v1/query/{id}", self.base);
        let request = self.http.get(url).header("X-Trino-User", "test");
        let answer = request.send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    /// Whether the node has finished starting and serves requests.
    pub async fn is_up(&self) -> bool {
        let answer = self.http.get(format!("{}/v1/info", self.base)).send().await;
        match answer {
            Err(_) => false,
            Ok(answer) => {
                let info = answer.json::<Value>().await.unwrap_or_default();
                info["starting"] == Value::Bool(false)
            }
        }
    }
}

pub struct RunningQuery {
    http: reqwest::Client,
    pub id: String,
    next: Option<String>,
    rows: Vec<Row>,
}

impl RunningQuery {
    /// Follows the query to its end and returns all of its rows.
    pub async fn finish(mut self) -> Result<Vec<Row>> {
        while self.next.is_some() {
            self.step().await?;
        }
        Ok(self.rows)
    }

    /// Follows the query until it has returned its first rows.
    pub async fn until_rows(&mut self) -> Result<()> {
        while self.rows.is_empty() {
            ensure!(
                self.next.is_some(),
                "query {} ended without any row",
                self.id
            );
            self.step().await?;
        }
        Ok(())
    }

    /// Follows the query until it runs; it then goes on without its client for some minutes.
    pub async fn until_running(&mut self) -> Result<()> {
        let waits = |next: &Option<String>| {
            let next = next.as_deref();
            next.is_some_and(|next| next.contains("/queued/"))
        };
        while waits(&self.next) {
            self.step().await?;
        }
        Ok(())
    }

    /// Ends the query before its end.
    pub async fn cancel(self) -> Result<()> {
        if let Some(next) = self.next {
            let request = self.http.delete(next).header("X-Trino-User", "test");
            request.send().await?.error_for_status()?;
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<()> {
        let Some(next) = self.next.take() else {
            return Ok(());
        };
        let answer = self
            .http
            .get(&next)
            .header("X-Trino-User", "test")
            .send()
            .await?;
        // The protocol asks to retry after 502 to 504.
        if matches!(answer.status().as_u16(), 502..=504) {
            self.next = Some(next);
            tokio::time::sleep(Duration::from_millis(100)).await;
            return Ok(());
        }
        self.append(answer.error_for_status()?.json().await?)
    }

    fn append(&mut self, answer: Value) -> Result<()> {
        if let Some(error) = answer.get("error") {
            bail!(
                "query {} failed: {}: {}",
                self.id,
                error["errorName"].as_str().unwrap_or("?"),
                error["message"].as_str().unwrap_or("?")
            );
        }
        for row in answer["data"].as_array().into_iter().flatten() {
            self.rows
                .push(row.as_array().context("a row is not an array")?.clone());
        }
        self.next = answer["nextUri"].as_str().map(str::to_owned);
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub struct Task {
    pub id: String,
    pub node: String,
    pub state: String,
    /// The number of rows received so far, if the task writes to a table.
    pub writes: Option<u64>,
}

impl Task {
    /// The first two parts of the id, `query.stage`.
    pub fn stage(&self) -> &str {
        let mut parts = self.id.rsplitn(3, '.');
        parts.nth(2).unwrap_or(&self.id)
    }

    /// The last part of the id, `query.stage.partition.attempt`.
    pub fn attempt(&self) -> u32 {
        let last = self.id.rsplit('.').next();
        last.and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    pub fn is_running_on(&self, node: &str) -> bool {
        self.node == node && self.state == "RUNNING"
    }

    pub fn is_finished_on(&self, node: &str) -> bool {
        self.node == node && self.state == "FINISHED"
    }
}

/// Collects task statuses from anywhere in the document: the nesting of stages differs between
/// versions. The nearest enclosing plan is the plan of their stage.
fn collect_tasks(value: &Value, writes: bool, into: &mut Vec<Task>) {
    match value {
        Value::Object(members) => {
            let writes = members
                .get("plan")
                .map_or(writes, |plan| has_writer(&plan["root"]));
            if let Some(status) = members.get("taskStatus") {
                let text = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
                let taken = members["stats"]["processedInputPositions"].as_u64();
                into.push(Task {
                    id: text("taskId"),
                    node: text("nodeId"),
                    state: text("state"),
                    writes: writes.then(|| taken.unwrap_or(0)),
                });
            } else {
                let members = members.values();
                members.for_each(|member| collect_tasks(member, writes, into));
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect_tasks(item, writes, into)),
        _ => {}
    }
}

/// Whether a plan writes to a table. (Operators are reported only for finished tasks.)
fn has_writer(plan: &Value) -> bool {
    match plan {
        Value::Object(members) => {
            let kind = members
                .get("@type")
                .and_then(Value::as_str)
                .unwrap_or_default();
            matches!(kind.to_lowercase().as_str(), "tablewriter" | "mergewriter")
                || members.values().any(has_writer)
        }
        Value::Array(items) => items.iter().any(has_writer),
        _ => false,
    }
}
