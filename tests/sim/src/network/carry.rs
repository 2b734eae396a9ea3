//! Carries the bytes of one connection under the network's conditions.

use tokio::io::{AsyncRead, AsyncWrite};

use super::conditions::{Conditions, Direction};
use super::pipe::{Pipe, PipeEnd};

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Both peers closed the connection, or one of them broke it.
    Finished,
    /// The network cut the connection.
    Cut,
}

impl Conditions {
    /// Carries bytes between two peers until the connection ends. Each peer is a pair of a reader and a
    /// writer.
    pub async fn carry<CR, CW, SR, SW>(&self, client: (CR, CW), server: (SR, SW)) -> Ended
    where
        CR: AsyncRead + Unpin,
        CW: AsyncWrite + Unpin,
        SR: AsyncRead + Unpin,
        SW: AsyncWrite + Unpin,
    {
        let cut = self.connect();
        let to_server = Pipe::new(client.0, server.1, self.clone(), Direction::ToServer);
        let to_client = Pipe::new(server.0, client.1, self.clone(), Direction::ToClient);
        let both = async {
            // a direction that ends leaves the other open; a broken one ends both
            let (to_server, to_client) = (to_server.drive(), to_client.drive());
            tokio::pin!(to_server, to_client);
            tokio::select! {
                end = &mut to_server => match end {
                    PipeEnd::Finished => {
                        to_client.await;
                    }
                    PipeEnd::Broken => {}
                },
                end = &mut to_client => match end {
                    PipeEnd::Finished => {
                        to_server.await;
                    }
                    PipeEnd::Broken => {}
                },
            }
        };
        tokio::select! {
            biased;
            () = cut.cancelled() => {
                self.count_cut();
                Ended::Cut
            }
            () = both => Ended::Finished,
        }
    }
}
