//! The line from a simulated adapter to its host: a pseudo-terminal or any byte stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::pty::Pty;

/// The line to the host.
pub(super) trait HostLine: AsyncRead + AsyncWrite + Unpin {
    /// Whether the host has closed the line since the last call, so that another host may open it.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> bool;
}

impl HostLine for Pty {
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> bool {
        Pty::poll_closed(self, cx)
    }
}

pub(super) struct StreamLine<S>(pub(super) S);

impl<S: AsyncRead + AsyncWrite + Unpin> HostLine for StreamLine<S> {
    fn poll_closed(&mut self, _: &mut Context<'_>) -> bool {
        false
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StreamLine<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StreamLine<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
