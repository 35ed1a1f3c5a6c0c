//! `sslmode` and certificates.

use crate::harness::{Authority, Server, both, server};

const ROOT: &str = "sslrootcert=FOLDER/authority.pem";

async fn fails(url: &str, words: &[&str]) {
    let error = both(url).await.expect_err(url);
    for word in words {
        assert_eq!(error.matches(word).count(), 2, "{url}: {word:?} is not said of both: {error}");
    }
}

#[tokio::test]
async fn each_mode_asks_what_libpq_asks() {
    let server = server();
    let other = Authority::new("somebody else");
    server.file("other.pem", &other.certificate.pem());
    for (host, parameters, tls) in [
        ("localhost", "sslmode=disable", false),
        ("localhost", "sslmode=allow", false),
        ("localhost", "sslmode=prefer", true),
        ("localhost", "", true),
        ("localhost", "sslmode=require", true),
        ("localhost", &format!("sslmode=require&{ROOT}"), true),
        ("127.0.0.1", &format!("sslmode=require&{ROOT}"), true),
        ("127.0.0.1", &format!("sslmode=verify-ca&{ROOT}"), true),
        ("localhost", &format!("sslmode=verify-full&{ROOT}"), true),
        // As in libpq: what may go without TLS looks at no certificate.
        ("localhost", "sslmode=prefer&sslrootcert=FOLDER/other.pem", true),
    ] {
        assert_eq!(both(&server.url("scram", host, parameters)).await, Ok(tls), "{host} {parameters}");
    }
    let unknown = ["invalid peer certificate", "sslrootcert=FILE"];
    for parameters in [
        "sslmode=require&sslrootcert=FOLDER/other.pem",
        "sslmode=verify-ca&sslrootcert=FOLDER/other.pem",
        "sslmode=verify-full&sslrootcert=FOLDER/other.pem",
        // Without a file: the system's authorities.
        "sslmode=verify-full",
        "sslmode=verify-ca",
        "sslrootcert=system",
    ] {
        fails(&server.url("scram", "localhost", parameters), &unknown).await;
    }
    let elsewhere = format!("sslmode=verify-full&{ROOT}");
    fails(&server.url("scram", "127.0.0.1", &elsewhere), &["not valid for name", "sslmode=verify-ca"]).await;
}

#[tokio::test]
async fn a_server_without_tls() {
    let server = Server::without_tls();
    for parameters in ["sslmode=disable", "sslmode=allow", "sslmode=prefer", ""] {
        assert_eq!(both(&server.url("scram", "localhost", parameters)).await, Ok(false), "{parameters}");
    }
    for parameters in ["sslmode=require", "sslmode=verify-ca&sslrootcert=FOLDER/authority.pem"] {
        let error = both(&server.url("scram", "localhost", parameters)).await.expect_err("no TLS");
        assert!(error.contains("does not support TLS") && error.contains("does not speak it"), "{error}");
    }
}

/// pg_hba.conf may let a role in with TLS only, or without only: `prefer` and `allow` try both ways.
#[tokio::test]
async fn the_second_way_is_tried_where_the_first_is_refused() {
    let server = server();
    assert_eq!(both(&server.url("only_tls", "localhost", "sslmode=allow")).await, Ok(true));
    assert_eq!(both(&server.url("no_tls", "localhost", "sslmode=prefer")).await, Ok(false));
    fails(&server.url("only_tls", "localhost", "sslmode=disable"), &["no encryption", "28000"]).await;
    fails(&server.url("no_tls", "localhost", "sslmode=require"), &["SSL encryption", "28000"]).await;
}

/// A certificate that its owner signed is trusted when it is named itself; rcgen makes it as openssl does, an
/// authority of its own.
#[tokio::test]
async fn a_certificate_that_signed_itself() {
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("signed").pem();
    let server = Server::start_with(&certificate, &key.serialize_pem());
    server.file("own.pem", &certificate);
    let own = "sslmode=verify-full&sslrootcert=FOLDER/own.pem";
    assert_eq!(both(&server.url("scram", "localhost", own)).await, Ok(true));
    fails(&server.url("scram", "127.0.0.1", own), &["not valid for name"]).await;
    let own = "sslmode=verify-ca&sslrootcert=FOLDER/own.pem";
    assert_eq!(both(&server.url("scram", "127.0.0.1", own)).await, Ok(true));
    let theirs = "sslmode=verify-ca&sslrootcert=FOLDER/authority.pem";
    fails(&server.url("scram", "localhost", theirs), &["invalid peer certificate"]).await;
}

#[tokio::test]
async fn certificates_have_their_time() {
    let (certificate, key) = crate::harness::AUTHORITY.sign(&["localhost"], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let server = Server::start_with(&certificate, &key);
    let verified = "sslmode=verify-ca&sslrootcert=FOLDER/authority.pem";
    fails(&server.url("scram", "localhost", verified), &["expired", "renew"]).await;
    server.file("own.pem", &certificate);
    let own = "sslmode=verify-ca&sslrootcert=FOLDER/own.pem";
    fails(&server.url("scram", "localhost", own), &["xpired", "renew"]).await;
    assert_eq!(both(&server.url("scram", "localhost", "sslmode=require")).await, Ok(true), "nobody looks");
}

/// Cloud SQL, for one, asks for a certificate of the client.
#[tokio::test]
async fn a_client_shows_its_own_certificate() {
    let server = Server::start("localhost");
    let root = server.cluster.data_dir().join("root.crt");
    std::fs::write(&root, crate::harness::AUTHORITY.certificate.pem()).expect("written");
    server.cluster.set("ssl_ca_file", "root.crt").expect("an authority for clients");
    let (certificate, key) = crate::harness::AUTHORITY.sign(&[], |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "scram");
    });
    server.file("client.pem", &certificate);
    server.file("client.key", &key);
    let url = server.url(
        "scram",
        "localhost",
        "sslmode=require&sslcert=FOLDER/client.pem&sslkey=FOLDER/client.key",
    );
    let sql = "select client_dn from pg_catalog.pg_stat_ssl where pid = pg_catalog.pg_backend_pid()";
    assert_eq!(crate::harness::ask_query(&url, sql).await.as_deref(), Ok("/CN=scram"));
    assert_eq!(crate::harness::ask_replication(&url, sql).await.as_deref(), Ok("/CN=scram"));
}

/// Since 17.
#[tokio::test]
async fn tls_without_the_question_first() {
    let server = server();
    if server.cluster.major() < 17 {
        return;
    }
    let direct = "sslmode=verify-full&sslrootcert=FOLDER/authority.pem&sslnegotiation=direct";
    assert_eq!(both(&server.url("scram", "localhost", direct)).await, Ok(true));
}
