//! What a user of tokio writes: a task and a buffer for each connection, on the current-thread runtime.

use bench_peers::{READ_BYTES, Service, listen_and_print};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// An echo's buffer: takes the largest message of the benchmark in one read.
const ECHO_BYTES: usize = 16 * 1024;

fn main() -> std::io::Result<()> {
    let service = Service::from_arguments();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listen_and_print()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(serve(stream, service));
        }
    })
}

/// One connection, until its peer ends it or it breaks.
async fn serve(mut stream: TcpStream, service: Service) {
    let bytes = match service {
        Service::Echo => ECHO_BYTES,
        Service::Discard => READ_BYTES,
    };
    let mut buffer = vec![0; bytes];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if service == Service::Echo && stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
