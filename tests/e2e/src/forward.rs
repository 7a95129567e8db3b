//! A way out of a node's network.

use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use testkit::Netns;

/// Listens on the loopback interface of `node`, and connects whoever comes with `target`, as the test program reaches it.
pub(crate) fn forward(node: &Netns, target: String) -> SocketAddr {
    let listener = node.within(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            // Without the server the client is hung up on.
            let Ok(server) = TcpStream::connect(&target) else {
                continue;
            };
            let (to, from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || copy(from, to));
            thread::spawn(move || copy(server, client));
        }
    });
    address
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _broken = io::copy(&mut from, &mut to);
    let _closed = to.shutdown(Shutdown::Write);
}
