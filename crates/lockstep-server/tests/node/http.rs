//! HTTP beside the socket.

use crate::world::{Node, World};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close")
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_only_point_at_loopback_are_not_answered() {
    let world = World::new().await;
    let node = world.node_starting();
    for (host, status) in [
        ("localhost:4000", "200"),
        ("127.0.0.1", "200"),
        ("[::1]:4000", "200"),
        ("evil.example:4000", "421"),
        ("localhost.evil.example", "421"),
        ("", "421"),
    ] {
        let head = format!("GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close");
        node.until("live").await;
        let answer = node.request(&head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
    let upgrade = |more: &str| {
        format!(
            "GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}"
        )
    };
    let strange = [b"Sec-WebSocket-Version: 13\r\nOrigin: http://\xff.example".as_slice()].concat();
    let strange = String::from_utf8_lossy(&strange).into_owned();
    for (more, status) in [
        ("Sec-WebSocket-Version: 8", "426"),
        ("X-Nothing: 1", "426"),
        ("Sec-WebSocket-Version: 13\r\nOrigin: http://evil.example", "403"),
        (strange.as_str(), "403"),
    ] {
        let answer = node.request(&upgrade(more)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{more}: {answer}");
    }
    let post = node.request("POST /socket/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: close").await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_served_and_nothing_outside_their_folder() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("app");
    std::fs::create_dir_all(app.join("assets")).unwrap();
    std::fs::write(folder.path().join("outside"), "outside").unwrap();
    std::fs::write(app.join("index.html"), "the page").unwrap();
    std::fs::write(app.join("assets/a.js"), "a script").unwrap();
    let node = Node::start_with(&world.cluster.url(), &[("LOCKSTEP_STATIC", app.to_str().unwrap())]);
    for (path, status, holds) in [
        ("/", "200", "the page"),
        ("/lists/7?x=1", "200", "the page"),
        ("/assets/a.js", "200", "a script"),
        ("/assets/gone.js", "404", ""),
        ("/socket/longpoll", "404", ""),
        ("/../outside", "404", ""),
        ("/%2e%2e/outside", "404", ""),
        ("/assets/..%2f..%2foutside", "404", ""),
        ("//etc/passwd", "200", "the page"),
    ] {
        let answer = node.request(&get(path)).await;
        let is_refused = status == "404" && (answer.contains(" 404 ") || answer.contains("the page"));
        assert!(answer.contains(&format!(" {status} ")) || is_refused, "{path}: {answer}");
        assert!(
            answer.contains(holds) && !answer.contains("outside") && !answer.contains("root:"),
            "{path}: {answer}"
        );
        assert!(answer.contains("cache-control: no-cache"), "{path}: {answer}");
    }
    let script = node.request(&get("/assets/a.js")).await;
    assert!(script.contains("content-type: text/javascript") && script.contains("nosniff"), "{script}");
}
