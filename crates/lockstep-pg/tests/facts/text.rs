//! How values print.

use lockstep_core::pgoutput::Message;
use lockstep_pg::connect;
use lockstep_pg::replication_stream::create_slot;
use lockstep_pg::session::SET_LOCAL;
use lockstep_pg::target::Target;
use std::time::Duration;

use crate::tap::{Tap, cluster, database, one, run};

const VALUES: &str = "('2024-02-29 19:00:00+09'::timestamptz, '\\x00ff'::bytea, interval '1 day -2 hours', 1::float8 / 3, 1234.5::money)";

async fn inserted(tap: &mut Tap, client: &tokio_postgres::Client, mark: &str) -> Vec<String> {
    let messages = tap.changes(client, mark).await;
    let row = messages
        .iter()
        .find_map(|m| if let Message::Insert { new, .. } = m { Some(new.clone()) } else { None });
    row.expect("a row").iter().map(|value| value.text().unwrap_or_default().to_owned()).collect()
}

/// The stream prints values as its own session's settings say, not as the writer's. So the connection for replication
/// and those for queries are set alike when they start.
#[tokio::test(flavor = "multi_thread")]
async fn the_stream_prints_by_its_own_sessions_settings() {
    let client = database("text_settings").await;
    run(&client, &[
        "create table t (id int primary key generated always as identity, at timestamptz, b bytea, i interval, f float8, m money)",
        "create publication p for table t",
        "set timezone = 'Asia/Tokyo'; set datestyle = 'German'; set bytea_output = 'escape'; set extra_float_digits = -10",
    ]).await;
    let url = cluster().url_for("text_settings");
    let mut ours = Tap::open(&url, "text_ours").await;
    let target = Target::parse(&url).expect("a URL");
    let mut wire = connect::replication(&target, Duration::from_secs(20)).await.expect("a connection");
    wire.query("set timezone = 'Asia/Tokyo'").await.expect("set");
    wire.query("set datestyle = 'German'").await.expect("set");
    create_slot(&mut wire, "text_theirs").await.expect("a slot");
    let mut theirs = Tap::stream(wire, "text_theirs").await;
    let row = format!("insert into t (at, b, i, f, m) select * from (values {VALUES}) v");
    run(&client, &[&row]).await;
    let ours = inserted(&mut ours, &client, "ours").await;
    assert_eq!(ours[1..4], ["2024-02-29 10:00:00+00", "\\x00ff", "P1DT-2H"]);
    assert_eq!(inserted(&mut theirs, &client, "theirs").await[1], "29.02.2024 19:00:00 JST");
    // A query under the same settings prints the same bytes.
    let (query, _) = connect::open(&target).await.expect("a connection");
    query.batch_execute(&format!("begin; {}", *SET_LOCAL)).await.expect("its settings");
    let columns = ["id", "at", "b", "i", "f", "m"];
    for (column, streamed) in columns.iter().zip(&ours) {
        assert_eq!(&one(&query, &format!("select {column} from public.t")).await, streamed, "{column}");
    }
}

/// Renaming a label of an enum changes what rows say without writing one of them: nothing is in the stream, and no
/// trigger fires. Nodes find it by the labels in the catalog.
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_label_changes_rows_without_an_event() {
    let client = database("text_enum").await;
    run(&client, &[
        "create type e as enum ('a', 'b')", "create table t (id int primary key, v e)", "create publication p for table t",
        "create table fired (n int)",
        "create function note() returns trigger language plpgsql as 'begin insert into fired values (1); return null; end'",
        "create trigger note after insert or update or delete on t for each statement execute function note()",
        "insert into t values (1, 'a')",
    ]).await;
    let mut tap = Tap::open(&cluster().url_for("text_enum"), "text_enum").await;
    run(&client, &["alter type e rename value 'a' to 'z'"]).await;
    assert_eq!(tap.changes(&client, "end").await, []);
    assert_eq!(
        (one(&client, "select v from t").await, one(&client, "select count(*) from fired").await),
        ("z".into(), "1".into())
    );
}
