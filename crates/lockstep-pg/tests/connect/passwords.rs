//! Who lets us in, and with what proof.

use crate::harness::{AUTHORITY, both, server};
use lockstep_pg::target::Target;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

#[tokio::test]
async fn every_method_with_the_right_password_and_a_wrong_one() {
    let server = server();
    for role in ["plain", "clear", "md5", "scram"] {
        for mode in ["disable", "require"] {
            let url = server.url(role, "localhost", &format!("sslmode={mode}"));
            assert_eq!(both(&url).await, Ok(mode == "require"), "{role}");
            let wrong = both(&url.replace("it's", "this%20is")).await;
            if role == "plain" {
                assert!(wrong.is_ok(), "nobody asks");
                continue;
            }
            let error = wrong.expect_err(role);
            assert_eq!(error.matches("28P01").count(), 2, "{error}");
            let none = both(&url.replace(":it's%20m%40d@", "@")).await.expect_err("no password");
            assert!(none.contains("password missing") && none.contains("a password is asked for"), "{none}");
        }
    }
}

#[tokio::test]
async fn channel_binding_is_had_or_refused() {
    let server = server();
    for (role, parameters, works) in [
        ("scram", "sslmode=require&channel_binding=require", true),
        ("scram", "sslmode=require&channel_binding=prefer", true),
        ("scram", "sslmode=require&channel_binding=disable", true),
        ("scram", "sslmode=disable&channel_binding=prefer", true),
        ("scram", "sslmode=disable&channel_binding=require", false),
        ("md5", "sslmode=require&channel_binding=require", false),
        ("clear", "sslmode=require&channel_binding=require", false),
        ("plain", "sslmode=require&channel_binding=require", false),
    ] {
        let result = both(&server.url(role, "localhost", parameters)).await;
        assert_eq!(result.is_ok(), works, "{role} {parameters}: {result:?}");
    }
}

/// Somebody who ends TLS between us and the server, with a certificate of their own.
async fn eavesdropper(port: u16) -> u16 {
    let (certificate, key) = AUTHORITY.sign(&["localhost"], |_| {});
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let own = listener.local_addr().expect("a port").port();
    let target = Target::parse(&server().url("scram", "localhost", "sslmode=require")).expect("a URL");
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (acceptor, tls) = (acceptor.clone(), target.tls().clone());
            tokio::spawn(async move {
                let mut question = [0; 8];
                near.read_exact(&mut question).await?;
                let mut far = TcpStream::connect(("127.0.0.1", port)).await?;
                far.write_all(&question).await?;
                let mut answer = [0; 1];
                far.read_exact(&mut answer).await?;
                near.write_all(&answer).await?;
                let mut near = acceptor.accept(near).await?;
                let mut far = tls.connect("localhost", far).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    own
}

/// Without looking at certificates, binding alone tells that somebody listens: the password's proof is of no use to
/// them.
#[tokio::test]
async fn binding_keeps_the_proof_from_somebody_between() {
    let port = server().cluster.port();
    let between = eavesdropper(port).await;
    let url = |parameters: &str| {
        server()
            .url("scram", "localhost", &format!("sslmode=require&{parameters}"))
            .replace(&format!(":{port}/"), &format!(":{between}/"))
    };
    assert_eq!(both(&url("channel_binding=disable")).await, Ok(true), "the way itself works");
    for binding in ["prefer", "require"] {
        let error = both(&url(&format!("channel_binding={binding}"))).await.expect_err(binding);
        assert_eq!(error.matches("channel binding").count(), 2, "{error}");
    }
}
