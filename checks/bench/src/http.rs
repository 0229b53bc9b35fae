//! A client that is quick enough not to be what is measured: one connection, kept alive, plain HTTP over loopback.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// One connection to a server on this machine.
pub struct Connection {
    host: String,
    stream: BufReader<TcpStream>,
    /// Name, value and path of what goes into `Cookie`, as the server set it.
    cookies: Vec<(String, String, String)>,
    line: String,
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    pub body: String,
}

impl Connection {
    pub fn open(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let host = format!("127.0.0.1:{port}");
        Ok(Self { host, stream: BufReader::new(stream), cookies: Vec::new(), line: String::new() })
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.send("GET", target, None)
    }

    pub fn post(&mut self, target: &str, form: &str) -> Answer {
        self.send("POST", target, Some(form))
    }

    fn send(&mut self, method: &str, target: &str, form: Option<&str>) -> Answer {
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
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        self.receive()
    }

    fn receive(&mut self) -> Answer {
        let status = self.read_line().split(' ').nth(1).unwrap().parse().unwrap();
        let (mut location, mut length, mut chunked) = (None, 0, false);
        loop {
            let line = self.read_line();
            let Some((name, value)) = line.split_once(':') else { break };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "location" => location = Some(value.to_owned()),
                "content-length" => length = value.parse().unwrap(),
                "transfer-encoding" => chunked = true,
                "set-cookie" => {
                    let mut parts = value.split(';').map(str::trim);
                    let (name, value) = parts.next().unwrap().split_once('=').unwrap();
                    let path = parts
                        .find_map(|part| part.to_ascii_lowercase().starts_with("path=").then(|| &part[5..]));
                    let path = path.unwrap_or("/");
                    self.cookies.retain(|(known, _, at)| known != name || at != path);
                    if !value.is_empty() {
                        self.cookies.push((name.to_owned(), value.to_owned(), path.to_owned()));
                    }
                }
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        while chunked {
            let size = usize::from_str_radix(self.read_line().trim(), 16).unwrap();
            let begin = body.len();
            body.resize(begin + size, 0);
            self.stream.read_exact(&mut body[begin..]).unwrap();
            self.read_line();
            chunked = size > 0;
        }
        Answer { status, location, body: String::from_utf8(body).unwrap() }
    }

    fn read_line(&mut self) -> String {
        self.line.clear();
        self.stream.read_line(&mut self.line).unwrap();
        self.line.trim_end().to_owned()
    }
}
