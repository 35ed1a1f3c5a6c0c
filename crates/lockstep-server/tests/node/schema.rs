//! A schema that changes: only the table concerned is loaded anew, the client is told why, and an added column comes
//! as a change.
//!
//! Every client holds `lists` besides the table that changes; it must never be loaded again.

use crate::raw::Raw;
use crate::world::{Node, World, lists, todos};
use lockstep_client::{Client, Replica};
use lockstep_pg::install::{self, Patience, TrackRequest};
use serde_json::{Value as Json, json};

/// References of shapes that were loaded in full, and why.
type Resets = Vec<(String, String)>;

/// Reads until every reset that is expected was told and the client holds what `select` says; no other may be told.
async fn settle(world: &World, node: &Node, client: &mut Client, expected: Option<&str>, what: &str) {
    let mut resets = Resets::new();
    let wanted = |resets: &Resets| expected.is_none_or(|reason| resets.iter().any(|(_, r)| r == reason));
    while !wanted(&resets) {
        match client.commit().await {
            Ok(commit) => resets.extend(commit.resets),
            Err(error) => panic!("{what}: {error}, told {resets:?}: {:#?}", node.log()),
        }
    }
    let truth = truth(world, &client.replica).await;
    match client.until(|replica| held(replica) == truth).await {
        Ok(commits) => resets.extend(commits.into_iter().flat_map(|c| c.resets)),
        Err(error) => panic!("{what}: {error}\nheld {:#?}\ntruth {truth:#?}", held(&client.replica)),
    }
    let expected: Resets = expected.map(|reason| ("1".to_owned(), reason.to_owned())).into_iter().collect();
    assert_eq!(resets, expected, "{what}");
}

/// What `select *` says of each subscription: column and text of every value.
async fn truth(world: &World, replica: &Replica) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for wanted in &replica.wanted {
        let table = wanted.definition["table"].as_str().unwrap();
        let place =
            wanted.definition["scope"].as_object().map_or(String::new(), |_| "where list_id = 1".into());
        let place =
            wanted.definition["where"].as_str().map_or(place.clone(), |p| format!("{place} and ({p})"));
        let names = format!(
            "select attname from pg_attribute where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped \
             order by attnum"
        );
        let names: Vec<_> = world.sql.rows(&names).await.into_iter().filter_map(|r| r[0].clone()).collect();
        let text = |row: Vec<Option<String>>| {
            let named = names.iter().zip(row).map(|(n, v)| format!("{n}={}", v.unwrap_or("NULL".into())));
            named.collect::<Vec<_>>().join(" ")
        };
        let mut rows: Vec<_> =
            world.sql.rows(&format!("select * from {table} {place}")).await.into_iter().map(text).collect();
        rows.sort();
        all.push(rows);
    }
    all
}

/// What each subscription holds, the same way.
fn held(replica: &Replica) -> Vec<Vec<String>> {
    let text = |value: &Json| match value {
        Json::Null => "NULL".to_owned(),
        Json::Bool(b) => if *b { "t" } else { "f" }.to_owned(),
        Json::String(s) => s.clone(),
        other => other.to_string(),
    };
    let shape = |reference: &str| {
        let columns = replica.columns_of(reference).unwrap_or_default();
        let rows = replica.rows_of(reference).unwrap_or_default();
        let row = |row: &lockstep_client::Row| {
            columns.iter().map(|c| format!("{c}={}", text(&row[c]))).collect::<Vec<_>>().join(" ")
        };
        let mut rows: Vec<_> = rows.values().map(row).collect();
        rows.sort();
        rows
    };
    replica.wanted.iter().map(|w| shape(&w.reference)).collect()
}

/// A live client through all changes, and for each change one that is away meanwhile.
struct Play {
    world: World,
    node: Node,
    table: Json,
    live: Client,
    n: i32,
}

impl Play {
    async fn new(world: World, table: Json) -> Self {
        let node = world.node_that_asks().await;
        Self::new_on(world, node, table).await
    }

    async fn new_on(world: World, node: Node, table: Json) -> Self {
        let mut live = node.join([lists(), table.clone()]).await;
        live.commit().await.unwrap();
        Self { world, node, table, live, n: 0 }
    }

    async fn away(&self) -> Replica {
        let mut away = self.node.join([lists(), self.table.clone()]).await;
        away.commit().await.unwrap();
        let truth = truth(&self.world, &away.replica).await;
        away.until(|replica| held(replica) == truth).await.unwrap();
        away.crash()
    }

    /// Runs a change, then `after` and a write to the other table. `expected`: what the live client and the one that
    /// comes back are told.
    async fn change(&mut self, change: &str, after: &str, expected: Option<&str>) {
        let away = self.away().await;
        self.world.sql.run(change).await;
        self.n += 1;
        self.world.sql.run(&format!("update lists set total = {}; {after}", self.n)).await;
        settle(&self.world, &self.node, &mut self.live, expected, change).await;
        let mut back = self.node.resume(away).await;
        settle(&self.world, &self.node, &mut back, expected, &format!("away: {change}")).await;
    }

    fn never_restarted(&self) {
        let again =
            self.node.log().into_iter().filter(|l| l.contains("cannot be followed") || l.contains("anew"));
        assert_eq!(again.collect::<Vec<_>>(), Vec::<String>::new());
    }
}

const ROWS: &str =
    "insert into todos select i, 1, 'title ' || i, false, repeat('x', i) from generate_series(1, 20) i";

#[tokio::test(flavor = "multi_thread")]
async fn an_added_column_is_a_change() {
    let world = World::new().await;
    world.sql.run(ROWS).await;
    let mut play = Play::new(world, todos(1)).await;
    for (change, after) in [
        ("alter table todos add a int", ""),
        ("alter table todos add b text not null default 'x\"y\\'", ""),
        ("alter table todos add c timestamptz default now()", "update todos set c = 'infinity' where id = 2"),
        (
            "alter table todos add d int[] default '{1,2}', add e float8 default 'NaN', add f bool default true",
            "",
        ),
        ("alter table todos add h jsonb default '{\"a\": [1, null]}'", "delete from todos where id = 3"),
        ("begin; alter table todos add i int default 5; update todos set i = id where id < 5; commit", ""),
        (
            "alter table todos add j int default 1; alter table todos alter j set default 2",
            "insert into todos (id, list_id, title) values (40, 1, 'x')",
        ),
        (
            "begin; alter table todos add k text; insert into todos (id, list_id, title) values (41, 1, 'x'); commit",
            "update todos set k = 'k'",
        ),
    ] {
        play.change(change, after, None).await;
    }
    play.never_restarted();
    // A client that cannot do so loads it anew, and is told.
    let mut old = Raw::new(todos(1));
    old.join(&play.node.socket()).await;
    play.world.sql.run("alter table todos add l int default 7").await;
    old.until(|c| c.resets.len() == 2).await;
    assert_eq!(old.resets, ["first", "schema_changed"]);
    assert!(old.rows.values().all(|row| row.last().is_some_and(|v| v == "7")));
}

/// The same in a shape with a `where`, of which rows come and go meanwhile; then one that asks for the added column.
#[tokio::test(flavor = "multi_thread")]
async fn an_added_column_is_a_change_where_rows_are_chosen() {
    let chosen = |predicate: &str| {
        let mut shape = todos(1);
        shape["where"] = predicate.into();
        shape
    };
    let world = World::new().await;
    world.sql.run(ROWS).await;
    let mut play = Play::new(world, chosen("not done")).await;
    for (change, after) in [
        ("alter table todos add a int default 5", "update todos set done = true where id = 2"),
        (
            "begin; update todos set done = true where id = 3; alter table todos add b text default 'x'; \
             update todos set done = false where id = 2; commit",
            "update todos set a = 6, done = false where id = 3",
        ),
        (
            "alter table todos add c bool not null default false",
            "update todos set c = true, a = id where id > 10",
        ),
        (
            "begin; alter table todos add d text; insert into todos (id, list_id, title, d) values (41, 1, 'x', 'y'); commit",
            "",
        ),
    ] {
        play.change(change, after, None).await;
    }
    let Play { world, node, .. } = play;
    let mut play = Play::new_on(world, node, chosen("c and a > 12")).await;
    assert_eq!(held(&play.live.replica)[1].len(), 8, "13 to 20");
    play.change("alter table todos add e int default 1", "update todos set c = id % 2 = 0, e = id", None)
        .await;
    assert_eq!(held(&play.live.replica)[1].len(), 4);
    play.never_restarted();
}

/// A value that is computed for each row rewrites the table.
#[tokio::test(flavor = "multi_thread")]
async fn other_changes_load_one_table_anew() {
    let world = World::new().await;
    world
        .sql
        .run(&format!(
            "{ROWS}; create domain small as int default 3 check (value < 9); create type mood as enum ('sad', 'ok'); create type pair as (a int, b text);
             alter table todos add mood mood default 'ok', add pair pair default '(1,x)', add moods mood[] default '{{sad}}'"
        ))
        .await;
    let mut play = Play::new(world, todos(1)).await;
    for (change, expected) in [
        ("alter table todos add volatile int default random() * 1000", "schema_changed"),
        // A domain with a check, too.
        ("alter table todos add small small", "schema_changed"),
        ("alter table todos rename body to content", "schema_changed"),
        ("alter table todos alter done type text", "schema_changed"),
        ("alter table todos drop done", "schema_changed"),
        ("alter table todos alter title type text using upper(title)", "rewritten"),
        ("alter type mood rename value 'ok' to 'fine'", "schema_changed"),
        ("alter type mood add value 'glad' before 'sad'", "schema_changed"),
        ("alter type pair add attribute c int", "schema_changed"),
        ("vacuum full todos", "rewritten"),
        ("cluster todos using todos_pkey", "rewritten"),
        // What is written meanwhile is in no log, and the triggers come back as ORIGIN.
        (
            "alter table todos disable trigger all; update todos set title = 'unlogged' where id = 1; \
             alter table todos enable trigger all",
            "not_logged",
        ),
        (
            "alter publication lockstep_tables drop table todos; update todos set title = 'unpublished' where id = 2; \
             alter publication lockstep_tables add table todos",
            "not_logged",
        ),
    ] {
        play.change(change, "update todos set title = title || '!' where id = 5", Some(expected)).await;
    }
    play.never_restarted();
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_come_and_go() {
    let mut world = World::new().await;
    world
        .sql
        .run(
            "create table parts (id int, list_id int, v text, primary key (id, list_id)) partition by range (id);
             create table parts_1 partition of parts for values from (0) to (10);
             create table parts_2 (v text, list_id int not null, id int not null, primary key (id, list_id));
             insert into parts_2 values ('b', 1, 15);
             insert into parts select i, 1, 'a' from generate_series(1, 9) i",
        )
        .await;
    let request = TrackRequest {
        table: "parts".into(),
        scopes: vec![vec!["list_id".into()]],
        ..TrackRequest::default()
    };
    install::track(&mut world.sql.client, &request, &Patience::default()).await.unwrap();
    let mut play = Play::new(world, json!({"table": "parts", "scope": {"list_id": 1}})).await;
    for change in [
        "create table parts_3 partition of parts for values from (20) to (30)",
        "alter table parts attach partition parts_2 for values from (10) to (20)",
        "alter table parts detach partition parts_1",
        "drop table parts_2",
        "vacuum full parts_3",
    ] {
        play.change(
            change,
            "insert into parts select coalesce(max(id), 20) + 1, 1, 'new' from parts where id > 20",
            Some("rewritten"),
        )
        .await;
    }
    play.change("alter table parts add n int default 6", "", None).await;
    play.never_restarted();
}

/// Without the event trigger, which only a superuser may create, nothing tells of DDL that nobody writes after: the look
/// at the catalog does.
#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_in_the_stream_tells_is_noticed() {
    let world = World::new().await;
    world
        .sql
        .run(&format!(
            "drop event trigger lockstep_schema; create type mood as enum ('sad', 'ok'); \
             alter table todos add mood mood default 'ok'; {ROWS}"
        ))
        .await;
    let node = world.node().await;
    let mut live = node.join([lists(), todos(1)]).await;
    world.settled(&mut live).await;
    for (change, expected) in [
        ("alter type mood rename value 'ok' to 'fine'", Some("schema_changed")),
        ("alter table todos add a int default 7", None),
        ("alter table todos alter title type text using upper(title)", Some("rewritten")),
    ] {
        world.sql.run(change).await;
        settle(&world, &node, &mut live, expected, change).await;
    }
}

/// Renamed, dropped, or without what its log goes by: the subscription ends, the application's writes and everybody
/// else's sessions go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_followed_is_withdrawn() {
    let mut world = World::new().await;
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.sql.run(&format!("create table {name} (id int primary key, list_id int, v int); insert into {name} values (1, 1, 1)")).await;
        let request = TrackRequest {
            table: name.into(),
            scopes: vec![vec!["list_id".into()]],
            ..TrackRequest::default()
        };
        install::track(&mut world.sql.client, &request, &Patience::default()).await.unwrap();
    }
    let node = world.node().await;
    for (table, change, write) in [
        ("a", "alter table a rename to renamed", "update renamed set v = 2"),
        ("b", "create schema other; alter table b set schema other", "insert into other.b values (2, 1, 1)"),
        ("c", "alter table c rename list_id to list", "update c set list = 2; delete from c"),
        ("d", "alter table d drop list_id cascade", "update d set v = 2; delete from d"),
        ("e", "drop table e cascade", "select 1"),
        ("f", "alter table f disable trigger lockstep_move", "update f set v = 2; update f set list_id = 2"),
    ] {
        let mut client = node.join([lists(), json!({"table": table, "scope": {"list_id": 1}})]).await;
        client.commit().await.unwrap();
        assert_eq!(client.replica.rows_of("1").map(|r| r.len()), Some(1));
        world.sql.run(change).await;
        world.sql.run(write).await;
        world.sql.run("update lists set total = total + 1").await;
        let gone = client.until(|r| r.rows_of("1").is_none()).await;
        let gone = gone.unwrap_or_else(|e| panic!("{table}: {e} {:#?}", node.log()));
        let truth = world.truth(&Replica::new([lists()])).await;
        let more = client.until(|r| crate::world::held(r)[..1] == truth[..]).await.unwrap();

        assert!(gone.iter().chain(&more).all(|c| c.resets.is_empty()), "{table}: {gone:?} {more:?}");
    }
    // Under its new name it is a shape again.
    let mut client = node.join([json!({"table": "renamed", "scope": {"list_id": 1}})]).await;
    client.until(|r| r.column("0", "v") == ["2"]).await.unwrap();
    // And what lost its log is tracked again.
    world.sql.run("alter table d add list_id int").await;
    install::untrack(&mut world.sql.client, "d", &Patience::default()).await.unwrap();
    let request =
        TrackRequest { table: "d".into(), scopes: vec![vec!["list_id".into()]], ..TrackRequest::default() };
    install::track(&mut world.sql.client, &request, &Patience::default()).await.unwrap();
    world.sql.run("insert into d (id, v, list_id) values (7, 8, 1)").await;
    // A table just tracked is unknown until the node looks.
    loop {
        let mut client = node.join([json!({"table": "d", "scope": {"list_id": 1}})]).await;
        client.commit().await.unwrap();
        if client.replica.rows_of("0").is_some() {
            assert_eq!(client.replica.column("0", "v"), ["8"]);
            break;
        }
    }
}

/// A mutation made before the column was dropped: refused under its number, and the next one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_names_a_dropped_column_goes_on() {
    let world = World::new().await;
    world.sql.run(ROWS).await;
    let node = world.node().await;
    let mut client = node.join([todos(1)]).await;
    client.commit().await.unwrap();
    let set = |set: Json| vec![json!({"op": "update", "table": "todos", "key": {"id": 1}, "set": set})];
    client.replica.push("dropped", set(json!({"body": "x"})));
    client.replica.push("kept", set(json!({"title": "after"})));
    let replica = client.crash();
    world.sql.run("alter table todos drop body").await;
    let mut client = node.resume(replica).await;
    let mut outcomes = Vec::new();
    let payload = client.replica.mutate().unwrap();
    client.call("mutate", payload).await.unwrap();
    let commits = client.until(|r| r.outbox.is_empty()).await.unwrap();
    outcomes.extend(commits.into_iter().flat_map(|c| c.outcomes));
    let codes: Vec<_> =
        outcomes.iter().map(|o| (o.n, o.refusal.as_ref().map(|(code, _)| code.as_str()))).collect();
    assert_eq!(codes, [(1, Some("unknown_column")), (2, None)]);
    settle_title(&world, &mut client).await;
}

async fn settle_title(world: &World, client: &mut Client) {
    world.settled(client).await;
    assert!(client.replica.column("0", "title").iter().any(|t| t == "after"));
}
