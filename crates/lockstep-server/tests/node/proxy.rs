//! A wire between node and PostgreSQL that can go dead without either end being told.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    port: u16,
    /// Connections accepted before the newest number are dead.
    age: watch::Sender<u64>,
}

impl Proxy {
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (age, now) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut now = now.clone();
                let born = *now.borrow();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                    let is_dead = tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => false,
                        age = now.wait_for(|age| *age > born) => age.is_ok(),
                    };
                    if is_dead {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { port, age }
    }

    /// Every connection of now stays open and carries nothing more.
    pub fn freeze(&self) {
        self.age.send_modify(|age| *age += 1);
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}
