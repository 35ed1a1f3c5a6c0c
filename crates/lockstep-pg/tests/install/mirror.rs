//! What a client would hold of one shape: loaded, kept with its cursor, and caught up by the product's own code.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_core::fanout::hub::{CatchUpRequest, ReadFrom, ReadRequest};
use lockstep_core::position::{CursorHead, ResetReason};
use lockstep_core::shape::{Shape, ShapeRequest};
use lockstep_pg::target::Target;
use lockstep_pg::{catalog, catch_up, poll};
use serde_json::{Value as Json, json};
use tokio_postgres::Client;

/// Rows by key, as of a cursor.
#[derive(Debug, Clone)]
pub struct Mirror {
    shape: Arc<Shape>,
    pub head: CursorHead,
    pub rows: BTreeMap<String, Json>,
}

impl Mirror {
    /// Loads `table`, or the scope of it that is given as `{"list": 1}`.
    pub async fn load(client: &Client, table: &str, scope: Json) -> Self {
        client.batch_execute("set jit = off").await.expect("as the node's sessions");
        let known = catalog::load(client).await.expect("a catalog");
        let request: ShapeRequest =
            serde_json::from_value(json!({"ref": "0", "table": table, "scope": scope})).expect("a request");
        let shape = Arc::new(Shape::resolve(&request, &known).expect("a shape"));
        let head = CursorHead {
            system: 0,
            timeline: 0,
            database: 0,
            incarnation: 0,
            fence: "0/0".parse().expect("an LSN"),
            snapshot: "1:1:".parse().expect("a snapshot"),
            shown: Vec::new(),
        };
        let mut mirror = Self { shape, head, rows: BTreeMap::new() };
        mirror.read(client, ReadFrom::Scratch(ResetReason::First)).await.expect("loaded");
        mirror
    }

    /// The same shape as the database has it now; rows and cursor stay.
    pub async fn reshape(&mut self, client: &Client) {
        let known = catalog::load(client).await.expect("a catalog");
        let scope = self.shape.scope().first().map(|(column, value)| {
            let number: i64 = value.parse().expect("a number");
            json!({self.shape.table.columns[*column].name.clone(): number})
        });
        let definition = json!({"ref": "0", "table": self.shape.table.name, "scope": scope});
        let request: ShapeRequest = serde_json::from_value(definition).expect("a request");
        self.shape = Arc::new(Shape::resolve(&request, &known).expect("a shape"));
    }

    /// The same shape loaded anew.
    pub async fn truth(&self, client: &Client) -> BTreeMap<String, Json> {
        let mut other = self.clone();
        other.rows.clear();
        other.read(client, ReadFrom::Scratch(ResetReason::First)).await.expect("loaded");
        other.rows
    }

    /// Catches up. Returns why it was loaded in full, if it was, and how many rows came.
    pub async fn resume(&mut self, client: &Client) -> (Option<String>, usize) {
        let from = ReadFrom::Since(Arc::new(self.head.clone()));
        self.read(client, from).await.expect("caught up")
    }

    async fn read(
        &mut self,
        client: &Client,
        from: ReadFrom,
    ) -> Result<(Option<String>, usize), lockstep_pg::PgError> {
        // Nothing is read in a life of the server that is not marked.
        let incarnation = poll::mark(client).await?;
        // A table that was truncated has other storage: as a node does, the shape is resolved anew.
        let known = catalog::load(client).await?;
        self.shape = Arc::new(self.shape.again(&known).expect("a shape"));
        let reads = vec![ReadRequest { shape: self.shape.clone(), from }];
        let request = CatchUpRequest { id: Default::default(), reads, clients: Vec::new() };
        let place =
            crate::harness::one(client, "select inet_server_port() || '/' || current_database()").await;
        let target = Target::parse(&crate::harness::url_of(&place)).expect("a URL");
        let answer = catch_up::read_whole(&target, &request, &[], std::time::Duration::from_secs(30)).await?;
        let (mut reset, mut rows) = (None, 0);
        for frame in &answer.reads[0].frames {
            let frame: Json = serde_json::from_slice(frame).expect("a frame");
            let body = &frame[4];
            if let Some(reason) = body["reset"].as_str() {
                reset = Some(reason.to_owned());
                self.rows.clear();
            }
            for key in body["remove"].as_array().into_iter().flatten() {
                self.rows.remove(&key.to_string());
                rows += 1;
            }
            for row in body["put"].as_array().into_iter().flatten() {
                let key: Vec<&Json> = self.shape.table.key.iter().map(|at| &row[*at]).collect();
                self.rows.insert(json!(key).to_string(), row.clone());
                rows += 1;
            }
        }
        let facts = answer.facts;
        self.head = CursorHead {
            system: facts.system,
            timeline: facts.timeline,
            database: facts.database,
            incarnation,
            fence: facts.insert_lsn,
            snapshot: facts.snapshot,
            shown: Vec::new(),
        };
        Ok((reset, rows))
    }
}
