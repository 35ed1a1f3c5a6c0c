//! Unix sockets, and what else a URL may say.

use crate::harness::{ask_query, ask_replication, both, server};

#[tokio::test]
async fn a_unix_socket_carries_both() {
    let server = server();
    let folder = server.folder().display().to_string();
    let encoded = folder.replace('/', "%2F");
    let port = server.cluster.port();
    for url in [
        format!("postgres://scram@{encoded}:{port}/postgres"),
        format!("postgres://scram@/postgres?host={folder}&port={port}"),
        format!("host={folder} port={port} user=scram dbname=postgres"),
        // TLS does not concern a socket.
        format!("host={folder} port={port} user=scram dbname=postgres sslmode=verify-full"),
    ] {
        assert_eq!(both(&url).await, Ok(false), "{url}");
        let local = "select client_addr is null from pg_catalog.pg_stat_activity where pid = pg_catalog.pg_backend_pid()";
        assert_eq!(ask_query(&url, local).await.as_deref(), Ok("t"), "{url}");
        assert_eq!(ask_replication(&url, local).await.as_deref(), Ok("t"), "{url}");
    }
}

#[tokio::test]
async fn options_and_names_reach_both() {
    let server = server();
    let url = server.url(
        "plain",
        "localhost",
        "application_name=a%20b&options=-c%20statement_timeout%3D12345%20-c%20datestyle%3DGerman",
    );
    for (setting, queries, replication) in [
        ("application_name", "a b", "a b"),
        ("statement_timeout", "12345ms", "12345ms"),
        // Values must print as they do everywhere: the stream's session keeps its own.
        ("datestyle", "German, DMY", "ISO, YMD"),
    ] {
        let sql = format!("show {setting}");
        assert_eq!(ask_query(&url, &sql).await.as_deref(), Ok(queries), "{setting}");
        assert_eq!(ask_replication(&url, &sql).await.as_deref(), Ok(replication), "{setting}");
    }
}

/// The first of several hosts that is the primary.
#[tokio::test]
async fn of_several_hosts_one_that_answers() {
    let server = server();
    let port = server.cluster.port();
    let url = format!("postgres://scram:it's%20m%40d@127.0.0.1:1,localhost:{port}/postgres");
    assert_eq!(both(&url).await, Ok(true));
    let by_address = format!("hostaddr=127.0.0.1 host=localhost port={port} user=plain dbname=postgres");
    assert_eq!(both(&by_address).await, Ok(true));
}
