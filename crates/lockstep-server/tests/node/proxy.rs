//! A wire between node and PostgreSQL that can go dead without either end being told, or wait within a large answer.

use crate::world::{Node, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    port: u16,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// Connections accepted before the newest number are dead.
    age: u64,
    /// A connection that has brought so many bytes from PostgreSQL brings no more.
    held_after: Option<u64>,
}

impl Proxy {
    /// A node that reaches the world's PostgreSQL through a proxy alone, and streams.
    pub async fn node(world: &World, environment: &[(&str, &str)]) -> (Self, Node) {
        let port = world.cluster.port();
        let proxy = Self::to(port).await;
        let url = world.cluster.url().replace(&format!(":{port}"), &format!(":{}", proxy.port));
        let node = Node::start_with(&url, environment);
        node.until("live").await;
        (proxy, node)
    }

    async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, now) = watch::channel(State::default());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let mut now = now.clone();
                let born = now.borrow().age;
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                    let (mut near_in, mut near_out) = near.into_split();
                    let (mut far_in, mut far_out) = far.into_split();
                    let is_dead = tokio::select! {
                        _ = tokio::io::copy(&mut near_in, &mut far_out) => false,
                        () = carry(&mut far_in, &mut near_out, now.clone()) => false,
                        state = now.wait_for(|state| state.age > born) => state.is_ok(),
                    };
                    if is_dead {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { port, state }
    }

    /// Every connection of now stays open and carries nothing more.
    pub fn freeze(&self) {
        self.state.send_modify(|state| state.age += 1);
    }

    /// Whatever PostgreSQL says stops after about so many bytes of its connection, also of those that are made later.
    pub fn hold_after(&self, bytes: u64) {
        self.state.send_modify(|state| state.held_after = Some(bytes));
    }

    /// Whatever was held goes on.
    pub fn release(&self) {
        self.state.send_modify(|state| state.held_after = None);
    }
}

/// What PostgreSQL says, until it ends.
async fn carry(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, mut now: watch::Receiver<State>) {
    let mut piece = vec![0; 64 << 10];
    let mut carried = 0;
    while let Ok(n) = from.read(&mut piece).await {
        let lets = |state: &State| state.held_after.is_none_or(|bytes| carried < bytes);
        if n == 0 || now.wait_for(lets).await.is_err() || to.write_all(&piece[..n]).await.is_err() {
            return;
        }
        carried += n as u64;
    }
}
