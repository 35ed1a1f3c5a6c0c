//! `lockstep types`: the tracked tables as a TypeScript module for `@lockstep/client`.

use anyhow::{Context, Result, bail};
use lockstep_core::catalog::Wire;
use lockstep_pg::schema::{Column, Reference, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// What int8 is in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Int8 {
    /// Text, which loses no digit.
    #[default]
    String,
    /// A bigint.
    Bigint,
    /// A number, exact up to 2^53.
    Number,
}

/// What numeric is in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Numeric {
    /// Text, which loses no digit.
    #[default]
    String,
    /// A number, rounded to a double.
    Number,
}

/// What dates and timestamps are in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Dates {
    /// Text, as PostgreSQL prints it in UTC.
    #[default]
    String,
    /// A Date, exact to the millisecond; without a zone it is taken as UTC.
    Date,
}

/// What json is in a row; it is parsed in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum JsonValues {
    /// Any JSON value.
    #[default]
    Json,
    /// Unknown, to be checked by the application.
    Unknown,
}

/// What values are for an application where there is a choice.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Choices {
    /// What int8 is in a row
    #[arg(long, value_enum, default_value_t)]
    pub int8: Int8,
    /// What numeric is in a row
    #[arg(long, value_enum, default_value_t)]
    pub numeric: Numeric,
    /// What date, timestamp and timestamptz are in a row
    #[arg(long, value_enum, default_value_t)]
    pub dates: Dates,
    /// What json and jsonb are in a row
    #[arg(long, value_enum, default_value_t)]
    pub json: JsonValues,
}

impl Choices {
    /// The form in which the client shows a column's values, where it is not the one they travel in.
    fn form(self, column: &Column) -> Option<&'static str> {
        match column.type_oid {
            INT8 if self.int8 == Int8::Bigint => Some("bigint"),
            INT8 if self.int8 == Int8::Number => Some("number"),
            NUMERIC if self.numeric == Numeric::Number => Some("number"),
            oid if TIMES.contains(&oid) && self.dates == Dates::Date => Some("Date"),
            _ => None,
        }
    }

    /// What stands at the top of the module.
    fn head(self) -> String {
        let decimal = "string, which loses no digit  (string | number | bigint)";
        let int8 = match self.int8 {
            Int8::String => decimal,
            Int8::Bigint => "bigint  (string | number | bigint)",
            Int8::Number => "number, exact up to 2^53  (string | number | bigint)",
        };
        let numeric = match self.numeric {
            Numeric::String => decimal,
            Numeric::Number => "number, rounded to a double  (string | number | bigint)",
        };
        let decimals = if int8 == numeric {
            format!("//   int8, numeric      {int8}\n")
        } else {
            format!("//   int8               {int8}\n//   numeric            {numeric}\n")
        };
        let dates = match self.dates {
            Dates::String => "string, as PostgreSQL prints it in UTC  (string | Date)",
            Dates::Date => "Date, without a zone as in UTC  (string | Date)",
        };
        let json = match self.json {
            JsonValues::Json => "Json, parsed",
            JsonValues::Unknown => "unknown, parsed",
        };
        let names = if self.json == JsonValues::Json { "Json, SchemaModule" } else { "SchemaModule" };
        format!(
            "\
// Written by `lockstep types`; write it anew after a change of the database's schema.
//
// A value is what it is in a row, and in brackets what may be written and compared:
{decimals}//   date, timestamp    {dates}
//   json, jsonb        {json}
//   an enum            its labels
//   an array, any other type    string, as PostgreSQL prints it
import type {{ {names} }} from '@lockstep/client'
"
        )
    }
}

/// Oids of types whose values are written in more than one way.
const INT8: u32 = 20;
const NUMERIC: u32 = 1700;
const TIMES: [u32; 3] = [1082, 1114, 1184];

/// One end of a foreign key, seen from a table.
struct Relation {
    name: String,
    target: String,
    many: bool,
    from: Vec<String>,
    to: Vec<String>,
}

/// Names of the module that are taken.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    /// This name, or the first that is free after it.
    fn take(&mut self, wanted: &str) -> String {
        let numbered = (2..).map(|n| format!("{wanted}{n}"));
        let free = std::iter::once(wanted.to_owned()).chain(numbered).find(|n| !self.0.contains(n));
        let name = free.unwrap_or_default();
        self.0.insert(name.clone());
        name
    }
}

/// The module. The same tables give the same text.
pub fn module(tables: &[Table], choices: Choices) -> String {
    let relations = relations(tables);
    let mut names = Names(["Json", "SchemaModule", "Schema", "Date"].map(str::to_owned).into());
    let mut out = choices.head();
    // Enums are told apart by their labels too: types of one name may lie in several schemas.
    let mut enums: BTreeMap<(&str, &[String]), String> = BTreeMap::new();
    for column in tables.iter().flat_map(|t| &t.columns) {
        let Some(name) = &column.enum_name else { continue };
        enums.entry((name, &column.labels)).or_insert_with(|| {
            let name = names.take(&pascal(name));
            let labels: Vec<String> = column.labels.iter().map(|l| quote(l)).collect();
            let union = if labels.is_empty() { "never".into() } else { labels.join(" | ") };
            line(&mut out, format_args!("\nexport type {name} = {union}"));
            name
        });
    }
    let mut types = String::new();
    for table in tables {
        let type_name = |c: &Column| {
            let label = c.enum_name.as_deref().and_then(|n| enums.get(&(n, c.labels.as_slice())));
            value_types(c, label.map(String::as_str), choices)
        };
        let pascal = pascal(&called(&table.schema, &table.name));
        let (row, input) = (names.take(&format!("{pascal}Row")), names.take(&format!("{pascal}Input")));
        interface(&mut out, &row, table, |c| type_name(c).0);
        interface(&mut out, &input, table, |c| type_name(c).1);
        table_types(&mut types, table, &row, &input, &relations);
    }
    line(&mut out, format_args!("\nexport type Schema = {{\n{types}}}"));
    line(&mut out, format_args!("\nexport const schema: SchemaModule<Schema> = {{\n  tables: {{"));
    for table in tables {
        description(&mut out, table, &relations, choices);
    }
    out.push_str("  },\n}\n");
    out
}

/// Prints the module, or writes it to a file; with `check` it fails instead where the file is another.
pub fn give(module: &str, out: Option<&Path>, check: bool) -> Result<()> {
    let Some(path) = out else {
        print!("{module}");
        return Ok(());
    };
    let name = path.display();
    if std::fs::read_to_string(path).is_ok_and(|held| held == module) {
        println!("{name}: up to date");
    } else if check {
        bail!("{name} is not what the tracked tables are now; run `lockstep types --out {name}`");
    } else {
        std::fs::write(path, module).with_context(|| format!("cannot write {name}"))?;
        println!("{name}: written");
    }
    Ok(())
}

/// A column's type in a row, and where it is written.
fn value_types(column: &Column, label: Option<&str>, choices: Choices) -> (String, String) {
    let form = choices.form(column);
    let (row, input) = match (label, Wire::of(column.type_oid)) {
        (Some(label), _) => (label, label),
        (_, Wire::Bool) => ("boolean", "boolean"),
        (_, Wire::Int | Wire::Float) => ("number", "number"),
        (_, Wire::Json) if choices.json == JsonValues::Unknown => ("unknown", "unknown"),
        (_, Wire::Json) => ("Json", "Json"),
        _ if [INT8, NUMERIC].contains(&column.type_oid) => {
            (form.unwrap_or("string"), "string | number | bigint")
        }
        _ if TIMES.contains(&column.type_oid) => (form.unwrap_or("string"), "string | Date"),
        _ => ("string", "string"),
    };
    let null = if column.not_null { "" } else { " | null" };
    (format!("{row}{null}"), format!("{input}{null}"))
}

fn interface(out: &mut String, name: &str, table: &Table, of: impl Fn(&Column) -> String) {
    line(out, format_args!("\nexport interface {name} {{"));
    for column in &table.columns {
        line(out, format_args!("  readonly {}: {}", property(&column.name), of(column)));
    }
    out.push_str("}\n");
}

fn table_types(out: &mut String, table: &Table, row: &str, input: &str, relations: &Relations) {
    let union = |names: Vec<&String>| match names.len() {
        0 => "never".to_owned(),
        _ => names.into_iter().map(|n| quote(n)).collect::<Vec<_>>().join(" | "),
    };
    let chosen =
        |f: &dyn Fn(&&Column) -> bool| union(table.columns.iter().filter(f).map(|c| &c.name).collect());
    let table_name = called(&table.schema, &table.name);
    line(out, format_args!("  {}: {{", property(&table_name)));
    line(out, format_args!("    row: {row}\n    input: {input}"));
    line(out, format_args!("    key: {}", union(table.key.iter().collect())));
    line(out, format_args!("    required: {}", chosen(&|c| c.not_null && !c.has_default)));
    line(out, format_args!("    fixed: {}", chosen(&|c| c.fixed)));
    out.push_str("    relations: {\n");
    for Relation { name, target, many, .. } in relations.get(&table_name).into_iter().flatten() {
        line(out, format_args!("      {}: {{ table: {}; many: {many} }}", property(name), quote(target)));
    }
    out.push_str("    }\n  }\n");
}

fn description(out: &mut String, table: &Table, relations: &Relations, choices: Choices) {
    let list = |names: &[String]| names.iter().map(|n| quote(n)).collect::<Vec<_>>().join(", ");
    let table_name = called(&table.schema, &table.name);
    line(
        out,
        format_args!(
            "    {}: {{\n      key: [{}],\n      columns: {{",
            property(&table_name),
            list(&table.key)
        ),
    );
    for column in &table.columns {
        line(out, format_args!("        {}: {},", property(&column.name), quote(&column.type_name)));
    }
    out.push_str("      },\n      labels: {\n");
    for column in table.columns.iter().filter(|c| c.enum_name.is_some()) {
        line(out, format_args!("        {}: [{}],", property(&column.name), list(&column.labels)));
    }
    let forms: Vec<_> = table.columns.iter().filter_map(|c| Some((&c.name, choices.form(c)?))).collect();
    if !forms.is_empty() {
        out.push_str("      },\n      forms: {\n");
        for (name, form) in forms {
            line(out, format_args!("        {}: {},", property(name), quote(form)));
        }
    }
    out.push_str("      },\n      relations: {\n");
    for Relation { name, target, many, from, to } in relations.get(&table_name).into_iter().flatten() {
        let (name, target, from, to) = (property(name), quote(target), list(from), list(to));
        line(
            out,
            format_args!("        {name}: {{ table: {target}, many: {many}, from: [{from}], to: [{to}] }},"),
        );
    }
    out.push_str("      },\n    },\n");
}

type Relations = BTreeMap<String, Vec<Relation>>;

/// Both ends of every foreign key whose columns travel, under names that are no columns.
fn relations(tables: &[Table]) -> Relations {
    let mut found = Relations::new();
    let columns: BTreeMap<String, BTreeSet<&str>> = tables
        .iter()
        .map(|t| (called(&t.schema, &t.name), t.columns.iter().map(|c| c.name.as_str()).collect()))
        .collect();
    let has = |table: &str, names: &[String]| {
        columns.get(table).is_some_and(|known| names.iter().all(|n| known.contains(n.as_str())))
    };
    let mut add = |table: &str, wanted: [String; 3], relation: Relation| {
        let list = found.entry(table.to_owned()).or_default();
        let free = |name: &String| {
            list.iter().all(|r| r.name != *name)
                && columns.get(table).is_none_or(|known| !known.contains(name.as_str()))
        };
        // A name that none of the three leaves free is given up: the relationship is then not declared.
        if let Some(name) = wanted.into_iter().find(free) {
            list.push(Relation { name, ..relation });
        }
    };
    for table in tables {
        let source = called(&table.schema, &table.name);
        for reference in &table.references {
            let target = called(&reference.schema, &reference.table);
            let Reference { from, to, is_unique, .. } = reference;
            if !has(&source, from) || !has(&target, to) {
                continue;
            }
            let (role, constraint) = (role(reference), reference.name.clone());
            let forward = [role.clone(), format!("{role}_row"), constraint.clone()];
            let relation = |target: &str, many, from: &[String], to: &[String]| Relation {
                name: String::new(),
                target: target.to_owned(),
                many,
                from: from.to_vec(),
                to: to.to_vec(),
            };
            add(&source, forward, relation(&target, false, from, to));
            let by_role = format!("{}_by_{role}", table.name);
            // A table that refers to the same one twice has no reverse that is called by its name alone.
            let same =
                |other: &&Reference| (&other.schema, &other.table) == (&reference.schema, &reference.table);
            let is_only = table.references.iter().filter(same).count() == 1;
            let backward = [if is_only { table.name.clone() } else { by_role.clone() }, by_role, constraint];
            add(&target, backward, relation(&source, !is_unique, to, from));
        }
    }
    found
}

/// What a referenced row is to the one that refers to it: `list` for `list_id`.
fn role(reference: &Reference) -> String {
    let [column] = reference.from.as_slice() else { return reference.table.clone() };
    let cut = ["_id", "Id"].iter().find_map(|ending| column.strip_suffix(ending));
    cut.filter(|role| !role.is_empty()).unwrap_or(column).to_owned()
}

/// A table's name in a client.
fn called(schema: &str, name: &str) -> String {
    if schema == "public" { name.to_owned() } else { format!("{schema}.{name}") }
}

/// `TodoItems` for `todo_items`.
fn pascal(name: &str) -> String {
    let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let upper = words.map(|word| {
        let mut letters = word.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<String>()
    });
    let joined: String = upper.collect();
    if joined.starts_with(|c: char| c.is_alphabetic()) { joined } else { format!("T{joined}") }
}

/// A name as a property.
fn property(name: &str) -> String {
    let plain = !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { name.to_owned() } else { quote(name) }
}

/// A literal of TypeScript: JSON's texts are such.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "{text}");
}
