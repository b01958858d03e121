//! HTTP/1.1 over one connection with as little work as possible, for benchmarks: requests are bytes that were made before,
//! answers are read and not parsed. Whoever measures a server with a comfortable client measures the client.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that stays open.
pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

/// A request, head and body.
#[must_use]
pub fn post(path: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

impl Connection {
    /// Connects to a port of this machine.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open(port: u16) -> Result<Connection> {
        let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection { stream, answer: vec![0; 1 << 20] })
    }

    /// Sends a request and returns the whole answer, head and body.
    ///
    /// # Errors
    /// When the connection breaks, or the answer is no success.
    pub fn call(&mut self, request: &[u8]) -> Result<&[u8]> {
        self.stream.write_all(request)?;
        let (mut read, mut wanted) = (0, None);
        while wanted.is_none_or(|wanted| read < wanted) {
            if read == self.answer.len() {
                self.answer.resize(2 * read, 0);
            }
            match self.stream.read(&mut self.answer[read..]) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(more) => read += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            if wanted.is_none() {
                wanted = length(&self.answer[..read])?;
            }
        }
        let answer = &self.answer[..read];
        ensure!(answer.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(answer));
        Ok(answer)
    }
}

/// Bytes of a whole answer, once its head is there.
fn length(answer: &[u8]) -> Result<Option<usize>> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let lines = std::str::from_utf8(&answer[..head])?.split("\r\n");
    let field = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, body) = field.context("an answer without content-length")?;
    Ok(Some(head + 4 + body.trim().parse::<usize>()?))
}

/// Answers each request of `request` bytes with the same `answer`, one connection after the other. What a call costs
/// beyond this is the server's.
///
/// # Errors
/// When no port is free.
pub fn echo(request: usize, answer: Vec<u8>) -> Result<(u16, JoinHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let serve = move || {
        let mut buffer = vec![0; request];
        // Ends with the client, whose end is the only error there can be.
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.set_nodelay(true);
            while stream.read_exact(&mut buffer).is_ok() && stream.write_all(&answer).is_ok() {}
        }
    };
    Ok((port, std::thread::spawn(serve)))
}

/// Microseconds of the calls of each of `connections`, which call one after the other for a while, after a short warm-up.
///
/// # Errors
/// The first call that fails.
pub fn measure(
    port: u16,
    connections: usize,
    time: Duration,
    requests: &[Vec<u8>],
) -> Result<Histogram<u64>> {
    let started = Instant::now();
    let (from, until) = (started + time / 10, started + time);
    let run = |client: usize| {
        let mut histogram: Histogram<u64> = Histogram::new(3)?;
        let mut connection = Connection::open(port)?;
        for number in client * 97.. {
            let begin = Instant::now();
            if begin >= until {
                break;
            }
            connection.call(&requests[number % requests.len()])?;
            if begin >= from {
                histogram.record(begin.elapsed().as_micros() as u64)?;
            }
        }
        anyhow::Ok(histogram)
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..connections).map(|client| scope.spawn(move || run(client))).collect();
        let mut all: Histogram<u64> = Histogram::new(3)?;
        for client in clients {
            all.add(client.join().expect("it does not panic")?)?;
        }
        Ok(all)
    })
}
