//! A table as the catalog describes it, and whether it can be tracked.

use tokio_postgres::{Row, Transaction};

use super::error::{InstallError, Refusal};

/// What the catalog says about a table. Every name in here was quoted by PostgreSQL itself: which words need quotes
/// depends on its version.
pub(super) struct Table {
    pub oid: u32,
    /// `schema.name`, ready to be pasted into SQL.
    pub quoted: String,
    /// The same as a string literal.
    pub literal: String,
    /// The primary key's columns in its order; empty without one.
    pub key_attnums: Vec<i16>,
    /// Triggers whose function is in our schema.
    pub our_triggers: Vec<String>,
    /// Its partitions that hold rows, quoted.
    pub leaves: Vec<String>,
    /// Partitions with our own trigger for TRUNCATE, quoted.
    pub leaf_triggers: Vec<String>,
    /// All its partitions.
    pub parts: Vec<u32>,
    /// It is in `lockstep_tables`.
    pub published: bool,
    /// There with a row filter or a column list.
    pub restricted: bool,
    /// Row level security is enabled.
    pub row_security: bool,
    pub columns: Vec<Column>,
    /// The log, if it is tracked.
    pub log: Option<Log>,
    schema: String,
    kind: String,
    persistence: String,
    identity: String,
    /// The partitioned table that it is a partition of.
    root: String,
    /// A partition that cannot be followed, and why.
    unfit: Option<Vec<String>>,
    inherits: bool,
    subscribed: bool,
    key_immediate: Option<bool>,
    trigger_taken: Option<String>,
}

/// A column, its domain resolved.
pub(super) struct Column {
    pub attnum: i16,
    pub name: String,
    pub quoted: String,
    /// The type without length, to be pasted into SQL.
    pub sql_type: String,
    /// ` collate …` where it is not the type's own, to be pasted into SQL.
    pub collation: String,
    declared: String,
    generated: bool,
    suitable: bool,
    deterministic: bool,
}

/// How the writes of a table reach its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerKind {
    /// Once per statement: ordinary tables.
    Statement,
    /// Once per row: partitioned tables, and tables that a subscription writes into. Bulk writes cost more.
    Row,
}

impl std::fmt::Display for TriggerKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Statement => "statement",
            Self::Row => "row",
        })
    }
}

/// What `lockstep.tracked` and `lockstep.scopes` say.
pub(super) struct Log {
    pub number: i32,
    pub key_attnums: Vec<i16>,
    /// As [`TriggerKind`] prints it.
    pub triggers: String,
    /// One entry per scope.
    pub scopes: Vec<Vec<i16>>,
    /// Triggers, functions, logs and publications are all in place.
    pub whole: bool,
}

/// Resolves a name as SQL writes it, under the session's search path. `None`: there is no such relation.
pub(super) async fn resolve(tx: &Transaction<'_>, name: &str) -> Result<Option<u32>, InstallError> {
    let bad = |reason: &str| InstallError::BadName { name: name.to_owned(), reason: reason.to_owned() };
    // parse_ident raises 22023 for a text that is no name. to_regclass does so before 16 (42xxx, 0A000), and is NULL since.
    let sql = "select parse_ident($1), to_regclass($1)::oid";
    let row = tx.query_one(sql, &[&name]).await.map_err(|error| match error.as_db_error() {
        Some(db) if ["22", "42", "0A"].contains(&&db.code().code()[..2]) => bad(db.message()),
        _ => error.into(),
    })?;
    Ok(row.get(1))
}

impl Table {
    /// Reads the catalog. `None`: the table is gone.
    pub async fn inspect(tx: &Transaction<'_>, oid: u32) -> Result<Option<Self>, InstallError> {
        // Types are printed with their schema unless it is on the path.
        tx.batch_execute("set local search_path = pg_catalog, pg_temp").await?;
        let Some(row) = tx.query_opt(include_str!("../../sql/inspect_table.sql"), &[&oid]).await? else {
            return Ok(None);
        };
        let columns = tx.query(include_str!("../../sql/inspect_columns.sql"), &[&oid]).await?;
        Ok(Some(Self {
            oid,
            quoted: row.get("quoted"),
            literal: row.get("literal"),
            key_attnums: row.get::<_, Option<Vec<i16>>>("key_attnums").unwrap_or_default(),
            our_triggers: row.get("our_triggers"),
            published: row.get("published"),
            restricted: row.get("restricted"),
            row_security: row.get("row_security"),
            columns: columns.iter().map(Column::read).collect(),
            log: Log::read(tx, oid).await?,
            schema: row.get("schema"),
            kind: row.get("kind"),
            persistence: row.get("persistence"),
            identity: row.get("identity"),
            root: row.get("root"),
            unfit: row.get("unfit"),
            leaves: row.get("leaves"),
            leaf_triggers: row.get("leaf_triggers"),
            parts: row.get("parts"),
            inherits: row.get("inherits"),
            subscribed: row.get("subscribed"),
            key_immediate: row.get("key_immediate"),
            trigger_taken: row.get("trigger_taken"),
        }))
    }

    /// The columns of a list of attribute numbers.
    pub fn columns_of(&self, attnums: &[i16]) -> impl Iterator<Item = &Column> {
        attnums.iter().filter_map(|attnum| self.columns.iter().find(|column| column.attnum == *attnum))
    }

    /// Which triggers it takes: statements on a partition do not fire those of the partitioned table, and logical
    /// replication fires row triggers only.
    pub fn triggers(&self) -> TriggerKind {
        if self.kind == "p" || self.subscribed { TriggerKind::Row } else { TriggerKind::Statement }
    }

    /// Why this table cannot be tracked, whatever its scopes.
    pub fn refusal(&self) -> Option<Refusal> {
        let about_kind = match self.kind.as_str() {
            _ if !self.root.is_empty() => Some(Refusal::Partition(self.root.clone())),
            "r" | "p" => None,
            "v" => Some(Refusal::NotATable("view")),
            "m" => Some(Refusal::NotATable("materialized view")),
            "f" => Some(Refusal::NotATable("foreign table")),
            "S" => Some(Refusal::NotATable("sequence")),
            "i" | "I" => Some(Refusal::NotATable("index")),
            _ => Some(Refusal::NotATable("relation of another kind")),
        };
        about_kind.or_else(|| self.refusal_of_table()).or_else(|| self.refusal_of_key())
    }

    fn refusal_of_table(&self) -> Option<Refusal> {
        if matches!(self.schema.as_str(), "lockstep" | "pg_catalog" | "information_schema" | "pg_toast") {
            return Some(Refusal::System(self.schema.clone()));
        }
        match self.persistence.as_str() {
            "u" => return Some(Refusal::Unlogged),
            "t" => return Some(Refusal::Temporary),
            _ => {}
        }
        if self.inherits {
            return Some(Refusal::Inherits);
        }
        if let Some([leaf, why]) = self.unfit.as_deref() {
            return Some(Refusal::UnfitPartition { leaf: leaf.clone(), why: why.clone() });
        }
        self.trigger_taken.clone().map(Refusal::TriggerTaken)
    }

    fn refusal_of_key(&self) -> Option<Refusal> {
        match self.key_immediate {
            None => return Some(Refusal::NoPrimaryKey),
            Some(false) => return Some(Refusal::DeferrableKey),
            Some(true) => {}
        }
        match self.identity.as_str() {
            "n" => return Some(Refusal::ReplicaIdentity("NOTHING")),
            "i" => return Some(Refusal::ReplicaIdentity("another index")),
            // From 18 on UPDATE fails: "Replica identity must not contain unpublished generated columns".
            "f" if self.columns.iter().any(|column| column.generated) => {
                return Some(Refusal::ReplicaIdentity("FULL, generated columns included"));
            }
            _ => {}
        }
        self.columns_of(&self.key_attnums).find_map(|column| column.refusal("primary key"))
    }

    /// The attribute numbers of the scopes as requested, each scope a set of columns.
    pub fn resolve_scopes(&self, scopes: &[Vec<String>]) -> Result<Vec<Vec<i16>>, Refusal> {
        let mut resolved: Vec<Vec<i16>> = Vec::new();
        for scope in scopes {
            let mut attnums = Vec::new();
            for name in scope {
                let column = self.column(name)?;
                column.refusal("scope").map_or(Ok(()), Err)?;
                if !attnums.contains(&column.attnum) {
                    attnums.push(column.attnum);
                }
            }
            if attnums.is_empty() {
                return Err(Refusal::EmptyScope);
            }
            add_scope(&mut resolved, attnums);
        }
        Ok(resolved)
    }

    /// A column by its very name, else by its name as SQL reads it: quotes taken off, or folded to lower case.
    fn column(&self, name: &str) -> Result<&Column, Refusal> {
        let as_sql = match name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(inner) => inner.replace("\"\"", "\""),
            None => name.trim().to_ascii_lowercase(),
        };
        let by = |wanted: &str| self.columns.iter().find(|column| column.name == wanted);
        by(name).or_else(|| by(&as_sql)).ok_or_else(|| Refusal::UnknownColumn {
            column: name.to_owned(),
            columns: self.columns.iter().map(|column| column.quoted.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}

/// Adds a scope unless one with the same columns, in whatever order, is there.
pub(super) fn add_scope(scopes: &mut Vec<Vec<i16>>, scope: Vec<i16>) {
    let same =
        |other: &Vec<i16>| other.len() == scope.len() && other.iter().all(|attnum| scope.contains(attnum));
    if !scopes.iter().any(same) {
        scopes.push(scope);
    }
}

impl Column {
    fn read(row: &Row) -> Self {
        Self {
            attnum: row.get("attnum"),
            name: row.get("name"),
            quoted: row.get("quoted"),
            sql_type: row.get("type"),
            collation: row.get("collation"),
            declared: row.get("declared"),
            generated: row.get("generated"),
            suitable: row.get("suitable"),
            deterministic: row.get("deterministic"),
        }
    }

    /// Why this column cannot be part of a key or scope.
    pub fn refusal(&self, role: &'static str) -> Option<Refusal> {
        let column = self.quoted.clone();
        if !self.suitable {
            return Some(Refusal::ColumnType { column, role, declared: self.declared.clone() });
        }
        if !self.deterministic {
            return Some(Refusal::Collation { column, role });
        }
        self.generated.then_some(Refusal::Generated { column, role })
    }
}

impl Log {
    async fn read(tx: &Transaction<'_>, oid: u32) -> Result<Option<Self>, InstallError> {
        let Some(row) = tx.query_opt(include_str!("../../sql/inspect_tracked.sql"), &[&oid]).await? else {
            return Ok(None);
        };
        let number: i32 = row.get("log");
        let scopes =
            tx.query("select attnums from lockstep.scopes where log = $1 order by scope", &[&number]).await?;
        Ok(Some(Self {
            number,
            key_attnums: row.get("key_attnums"),
            triggers: row.get("triggers"),
            scopes: scopes.iter().map(|row| row.get(0)).collect(),
            whole: row.get("whole"),
        }))
    }
}
