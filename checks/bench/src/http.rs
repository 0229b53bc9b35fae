//! As much of a client as the load needs, and little enough not to be what is measured: one connection, kept alive, plain
//! HTTP over loopback, whose answers are taken when they have come.

use std::io::{ErrorKind, Read as _, Write as _};

use mio::net::TcpStream;

/// One connection to a server on this machine.
pub struct Connection {
    host: String,
    stream: TcpStream,
    /// Name, value and path of what goes into `Cookie`, as the server set it.
    cookies: Vec<(String, String, String)>,
    /// What has come of the answer, and how long that is.
    received: Vec<u8>,
    length: usize,
}

/// What came back.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    pub body: String,
    set_cookies: Vec<String>,
}

impl Connection {
    pub fn open(port: u16) -> std::io::Result<Self> {
        let stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let host = format!("127.0.0.1:{port}");
        let (stream, received) = (TcpStream::from_std(stream), vec![0; 4096]);
        Ok(Self { host, stream, cookies: Vec::new(), received, length: 0 })
    }

    /// What tells that something has come.
    pub fn source(&mut self) -> &mut impl mio::event::Source {
        &mut self.stream
    }

    pub fn get(&mut self, target: &str) {
        self.send("GET", target, None);
    }

    pub fn post(&mut self, target: &str, form: &str) {
        self.send("POST", target, Some(form));
    }

    fn send(&mut self, method: &str, target: &str, form: Option<&str>) {
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: {}\r\n", self.host);
        // A person's browser brings its cookies, a client none.
        let cookies = self.cookies.iter().filter(|(.., path)| form.is_none() && target.starts_with(path));
        let pairs: Vec<String> = cookies.map(|(name, value, _)| format!("{name}={value}")).collect();
        if !pairs.is_empty() {
            request.push_str(&format!("cookie: {}\r\n", pairs.join("; ")));
        }
        match form {
            None => request.push_str("\r\n"),
            Some(form) => {
                let length = form.len();
                request.push_str(&format!(
                    "content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n\r\n{form}"
                ));
            }
        }
        // The one before is answered: there is room for a request, and nothing to wait for.
        self.stream.write_all(request.as_bytes()).unwrap();
    }

    /// The answer, or nothing while some of it is still to come.
    pub fn receive(&mut self) -> Option<Answer> {
        let answer = loop {
            if self.length == self.received.len() {
                self.received.resize(2 * self.length, 0);
            }
            match self.stream.read(&mut self.received[self.length..]) {
                Ok(read) => {
                    assert!(read > 0, "the server hung up");
                    self.length += read;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{error}"),
            }
            if let Some(answer) = Answer::parse(&self.received[..self.length]) {
                break answer;
            }
        };
        self.length = 0;
        answer.set_cookies.iter().for_each(|cookie| self.keep(cookie));
        Some(answer)
    }

    fn keep(&mut self, cookie: &str) {
        let mut parts = cookie.split(';').map(str::trim);
        let (name, value) = parts.next().unwrap().split_once('=').unwrap();
        let path = parts.find_map(|part| part.to_ascii_lowercase().starts_with("path=").then(|| &part[5..]));
        let path = path.unwrap_or("/");
        self.cookies.retain(|(known, _, at)| known != name || at != path);
        if !value.is_empty() {
            self.cookies.push((name.to_owned(), value.to_owned(), path.to_owned()));
        }
    }
}

impl Answer {
    /// What is all there of an answer that nothing may follow, because nothing more was asked for.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let status = rest.line()?.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Self { status, ..Self::default() };
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = rest.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            let value = value.trim();
            if name.eq_ignore_ascii_case("location") {
                answer.location = Some(value.to_owned());
            } else if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().unwrap();
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = true;
            } else if name.eq_ignore_ascii_case("set-cookie") {
                answer.set_cookies.push(value.to_owned());
            }
        }
        let mut body = rest.take(length)?.to_vec();
        while chunked {
            let size = usize::from_str_radix(rest.line()?, 16).unwrap();
            body.extend_from_slice(rest.take(size)?);
            rest.line()?;
            chunked = size > 0;
        }
        assert!(rest.0.is_empty(), "an answer that nobody asked for");
        answer.body = String::from_utf8(body).unwrap();
        Some(answer)
    }
}

/// What is still to be read of what has come.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn line(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        Some(std::str::from_utf8(self.take(end + 1)?).unwrap().trim_end())
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::Answer;

    /// However an answer arrives, it is whole with its last byte and not before.
    #[test]
    fn answers_are_whole_with_their_last_byte() {
        let head = "HTTP/1.1 302 Found\r\nLocation: /a\r\nSet-Cookie: a=b; path=/\r\nset-cookie: c=\r\n";
        let answer = |body: &str| Answer {
            status: 302,
            location: Some("/a".to_owned()),
            body: body.to_owned(),
            set_cookies: vec!["a=b; path=/".to_owned(), "c=".to_owned()],
        };
        for (rest, body) in [
            ("\r\n", ""),
            ("content-length: 4\r\n\r\na\n\r\n", "a\n\r\n"),
            (
                "Transfer-Encoding: chunked\r\n\r\n3\r\na\r\n\r\nB\r\nhello world\r\n0\r\n\r\n",
                "a\r\nhello world",
            ),
        ] {
            let bytes = format!("{head}{rest}").into_bytes();
            for length in 0..bytes.len() {
                assert_eq!(Answer::parse(&bytes[..length]), None, "{length} bytes of {rest:?}");
            }
            assert_eq!(Answer::parse(&bytes), Some(answer(body)), "{rest:?}");
        }
    }
}
