//! The transport below REST and websocket: TCP, with or without TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A TCP connection, with or without TLS.
pub(in crate::cloud) struct SocketTransport {
    stream: TransportStream,
    /// The bytes taken so far.
    written: u64,
}

enum TransportStream {
    /// Without TLS; only to a loopback address.
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl SocketTransport {
    /// A transport without TLS.
    pub(super) fn plain(tcp: TcpStream) -> Self {
        Self { stream: TransportStream::Plain(tcp), written: 0 }
    }

    /// A transport with TLS.
    pub(super) fn tls(tls: TlsStream<TcpStream>) -> Self {
        Self { stream: TransportStream::Tls(Box::new(tls)), written: 0 }
    }

    /// How many bytes the transport has taken since it was made.
    pub(in crate::cloud) fn written(&self) -> u64 {
        self.written
    }

    /// Sets after how long without acknowledgement of sent bytes TCP gives up.
    pub(in crate::cloud) fn set_user_timeout(&self, limit: Duration) {
        if let Err(error) = SockRef::from(self.tcp()).set_tcp_user_timeout(Some(limit)) {
            // the silence of the websocket is noticed without it, too
            tracing::debug!("TCP_USER_TIMEOUT: {error}");
        }
    }

    /// Ready if bytes written now would go onto the wire immediately: the kernel holds little that is not
    /// sent (`TCP_NOTSENT_LOWAT`).
    pub(in crate::cloud) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let tcp = self.tcp();
        loop {
            // a socket error is reported by the next write
            let _reported_later = ready!(tcp.poll_write_ready(cx));
            // The runtime believes a socket writable until a write fails, so ask the kernel.
            let writable = tcp.try_io(Interest::WRITABLE, || {
                let mut fds = [PollFd::new(tcp, PollFlags::OUT)];
                match poll(&mut fds, Some(&Timespec::default())) {
                    Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(()),
                }
            });
            if !matches!(writable, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                return Poll::Ready(());
            }
        }
    }

    /// The TCP connection itself.
    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            TransportStream::Plain(tcp) => tcp,
            TransportStream::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for SocketTransport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            TransportStream::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            TransportStream::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for SocketTransport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let transport = self.get_mut();
        let written = ready!(match &mut transport.stream {
            TransportStream::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            TransportStream::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        });
        transport.written += written.as_ref().map_or(0, |count| *count as u64);
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            TransportStream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            TransportStream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            TransportStream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            TransportStream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
