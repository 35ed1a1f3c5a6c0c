//! A TCP proxy that delays, throttles, stalls and cuts. It never changes a byte, unless a fault is planted.

use crate::plant::{Filter, Plant};
use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a link does to traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Nothing.
    Calm,
    /// Every piece waits up to so many milliseconds.
    Delay(u64),
    /// Bytes per second, about.
    Throttle(u64),
    /// Nothing passes; connections are accepted and stay open.
    Stalled,
    /// Connections are refused.
    Closed,
}

#[derive(Debug)]
struct State {
    target: AtomicU16,
    weather: watch::Sender<Weather>,
    /// Connections numbered up to here are cut.
    cut: watch::Sender<u64>,
    /// Connections numbered up to here are dead: open on both sides, and nothing passes ever again.
    dead: watch::Sender<u64>,
    opened: AtomicU64,
    plant: Option<Plant>,
}

/// A listening proxy; it ends with its runtime.
#[derive(Debug, Clone)]
pub struct Link {
    port: u16,
    state: Arc<State>,
}

impl Link {
    /// Listens on a free port and leads to `target`.
    pub async fn open(target: u16, plant: Option<Plant>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State {
            target: AtomicU16::new(target),
            weather: watch::Sender::new(Weather::Calm),
            cut: watch::Sender::new(0),
            dead: watch::Sender::new(0),
            opened: AtomicU64::new(0),
            plant,
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                if *shared.weather.borrow() != Weather::Closed {
                    tokio::spawn(connection(socket, shared.clone()));
                }
            }
        });
        Ok(Self { port, state })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// New connections lead there.
    pub fn lead_to(&self, target: u16) {
        self.state.target.store(target, Ordering::Relaxed);
    }

    /// Changes the weather, for open connections too.
    pub fn set(&self, weather: Weather) {
        self.state.weather.send_replace(weather);
    }

    /// Closes what is open. Returns how many connections there were since the last cut.
    pub fn cut(&self) -> u64 {
        let opened = self.state.opened.load(Ordering::Relaxed);
        opened - self.state.cut.send_replace(opened)
    }

    /// What is open stays open, and nothing passes there any more; new connections are well.
    pub fn bury(&self) {
        self.state.dead.send_replace(self.state.opened.load(Ordering::Relaxed));
    }
}

async fn connection(near: TcpStream, state: Arc<State>) {
    let number = state.opened.fetch_add(1, Ordering::Relaxed) + 1;
    let Ok(far) = TcpStream::connect(("127.0.0.1", state.target.load(Ordering::Relaxed))).await else {
        return;
    };
    // A proxy that collects small packets would hide what it is to test.
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let filter = state.plant.map(Filter::new);
    let mut cut = state.cut.subscribe();
    tokio::select! {
        // A dead connection's pumps never end: nobody is told that it is dead.
        () = async { tokio::join!(pump(near_in, far_out, number, &state, None), pump(far_in, near_out, number, &state, filter)); } => {}
        _ = cut.wait_for(|cut| *cut >= number) => {}
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    number: u64,
    state: &State,
    mut filter: Option<Filter>,
) {
    let mut buffer = vec![0; 16 << 10];
    let mut weather = state.weather.subscribe();
    loop {
        let read = from.read(&mut buffer).await;
        if weather.wait_for(|w| *w != Weather::Stalled).await.is_err() {
            return;
        }
        if *state.dead.borrow() >= number {
            std::future::pending::<()>().await;
        }
        let Ok(size @ 1..) = read else {
            // The other direction may still have something to say.
            let _ = to.shutdown().await;
            return;
        };
        let now = *weather.borrow();
        match now {
            Weather::Delay(most) => {
                tokio::time::sleep(Duration::from_millis(rand::random::<u64>() % (most + 1))).await
            }
            Weather::Throttle(rate) => {
                tokio::time::sleep(Duration::from_millis(size as u64 * 1000 / rate)).await
            }
            Weather::Calm | Weather::Stalled | Weather::Closed => {}
        }
        let sent = match &mut filter {
            Some(filter) => to.write_all(&filter.pass(&buffer[..size])).await,
            None => to.write_all(&buffer[..size]).await,
        };
        if sent.is_err() {
            return;
        }
    }
}
