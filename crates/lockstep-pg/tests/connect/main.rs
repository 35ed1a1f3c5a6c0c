//! Ways to a real server: TLS, passwords, sockets. Everything holds for queries and for replication alike.

mod harness;
mod passwords;
mod sockets;
mod tls;
