//! The hosts that nodes run on: network namespaces joined by a bridge where that is allowed, else loopback addresses.
//!
//! In a namespace, a node's API listens on that namespace's loopback and a client's socket is opened inside it. So what
//! is done to the network between nodes never touches what clients and nodes say to each other.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::delay::{Delay, Kept, Wait};
use crate::lock;

/// The port for peers in a namespace.
const PEER_PORT: u16 = 7412;
/// The port for clients in a namespace.
const API_PORT: u16 = 7411;

/// All hosts of a run, removed when it is dropped.
pub struct Hosts {
    /// Each host, by the index of its node.
    pub hosts: Vec<Host>,
    /// The namespace of the bridge; nothing on plain loopback.
    hub: Option<String>,
    /// What is done to packets until the network is whole again.
    delays: Mutex<Vec<Delay>>,
}

/// One host.
pub struct Host {
    /// Its address among the hosts.
    pub ip: Ipv4Addr,
    /// The port for peers.
    pub peer_port: u16,
    /// The port for clients, on 127.0.0.1.
    pub api_port: u16,
    /// Its namespace's name and a handle on it; nothing on plain loopback.
    pub space: Option<(String, File)>,
}

impl Host {
    /// Where peers reach it.
    pub fn peer_address(&self) -> String {
        format!("{}:{}", self.ip, self.peer_port)
    }

    /// A command that runs on this host.
    pub fn command(&self, program: &str) -> Command {
        match &self.space {
            None => Command::new(program),
            Some((name, _)) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{name}")).arg("--").arg(program);
                command
            }
        }
    }

    /// A connection to the API of the node on this host.
    pub fn dial(&self, wait: Duration) -> io::Result<TcpStream> {
        let to = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.api_port));
        self.inside(move || TcpStream::connect_timeout(&to, wait))?
    }

    /// Does something with a thread that is on this host.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let Some((_, space)) = &self.space else { return Ok(work()) };
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                move_into_link_name_space(std::os::fd::AsFd::as_fd(space), Some(LinkNameSpaceType::Network))?;
                Ok::<T, io::Error>(work())
            });
            there.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
        })
    }
}

/// Why there are no namespaces here, if there are none.
pub fn no_namespaces() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces take root".to_owned());
    }
    for (program, arg) in [("ip", "-V"), ("nsenter", "--version"), ("iptables", "--version")] {
        if !Command::new(program).arg(arg).output().is_ok_and(|ran| ran.status.success()) {
            return Some(format!("`{program}` is not installed"));
        }
    }
    let name = format!("cxj{}t", std::process::id());
    let tried = ip(&["netns", "add", &name]).and_then(|()| {
        run(Command::new("nsenter").arg(format!("--net=/run/netns/{name}")).args(["iptables", "-w", "-S"]))
    });
    let _ = ip(&["netns", "del", &name]);
    tried.err().map(|error| format!("a namespace cannot be made or has no iptables: {error:#}"))
}

impl Hosts {
    /// `count` hosts; in namespaces if `namespaces` says so.
    pub fn new(count: usize, namespaces: bool) -> Result<Hosts> {
        if !namespaces {
            let hosts = (0..count).map(loopback).collect::<Result<_>>()?;
            return Ok(Hosts { hosts, hub: None, delays: Mutex::default() });
        }
        // A number of its own for each run in this process, so that one run's leavings never meet the next one's.
        static RUNS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let run = RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let prefix = format!("cxj{}x{run}", std::process::id());
        let hub = format!("{prefix}hub");
        let mut made = Hosts { hosts: Vec::new(), hub: Some(hub.clone()), delays: Mutex::default() };
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "br0", "up"])?;
        for index in 0..count {
            let name = format!("{prefix}n{index}");
            let port = format!("h{index}");
            let address = Ipv4Addr::new(10, 77, 0, u8::try_from(index + 1)?);
            ip(&["netns", "add", &name])?;
            let space = File::open(format!("/run/netns/{name}")).context("the new namespace")?;
            made.hosts.push(Host {
                ip: address,
                peer_port: PEER_PORT,
                api_port: API_PORT,
                space: Some((name.clone(), space)),
            });
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
            ip(&["-n", &hub, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", &name, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(made)
    }

    /// Whether the network between hosts can be cut.
    pub fn can_cut(&self) -> bool {
        self.hub.is_some()
    }

    /// Nothing that `from` sends reaches `to` any more.
    pub fn cut(&self, from: usize, to: usize) -> Result<()> {
        let source = self.hosts[from].ip.to_string();
        self.iptables(to, &["-A", "INPUT", "-s", &source, "-j", "DROP"])
    }

    /// `host` loses this share of the packets that come in, and its line carries no more than `kbit` a second.
    pub fn worsen(&self, host: usize, loss: f64, kbit: u32) -> Result<()> {
        let loss = format!("{loss:.3}");
        self.iptables(
            host,
            &["-A", "INPUT", "-i", "eth0", "-m", "statistic", "--mode", "random", "--probability", &loss, "-j", "DROP"],
        )?;
        let rate = format!("{kbit}kbit");
        let Some((name, _)) = &self.hosts[host].space else { bail!("plain loopback cannot be slowed down") };
        run(Command::new("tc")
            .args(["-n", name, "qdisc", "replace", "dev", "eth0", "root", "tbf"])
            .args(["rate", &rate, "burst", "16kbit", "latency", "500ms"]))
    }

    /// What comes to `host` waits; copies of datagrams go to `kept`.
    pub fn delay(&self, host: usize, wait: Wait, kept: Option<Kept>) -> Result<()> {
        let delay = Delay::start(&self.hosts[host], wait, kept)?;
        lock(&self.delays).push(delay);
        Ok(())
    }

    /// Everything goes through again.
    pub fn heal(&self) -> Result<()> {
        if !self.can_cut() {
            return Ok(());
        }
        for (index, host) in self.hosts.iter().enumerate() {
            self.iptables(index, &["-F", "INPUT"])?;
            if let Some((name, _)) = &host.space {
                // There is nothing to take away where nothing was slowed down.
                let _ = Command::new("tc").args(["-n", name, "qdisc", "del", "dev", "eth0", "root"]).output();
            }
        }
        // After the rules, so that nothing is queued for nobody.
        lock(&self.delays).clear();
        Ok(())
    }

    fn iptables(&self, host: usize, args: &[&str]) -> Result<()> {
        run(self.hosts[host].command("iptables").arg("-w").args(args))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in self.hosts.iter().filter_map(|host| host.space.as_ref().map(|space| &space.0)).chain(&self.hub) {
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// 127.0.0.10 and on, each with ports that are free now.
fn loopback(index: usize) -> Result<Host> {
    let ip = Ipv4Addr::new(127, 0, 0, u8::try_from(index + 10)?);
    // Held until both are known, so that they differ.
    let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a free port")?;
    let peer = TcpListener::bind((ip, 0)).context("a free port")?;
    Ok(Host { ip, peer_port: peer.local_addr()?.port(), api_port: api.local_addr()?.port(), space: None })
}

fn ip(args: &[&str]) -> Result<()> {
    run(Command::new("ip").args(args))
}

/// Runs a command that has to work.
pub fn run(command: &mut Command) -> Result<()> {
    let ran = command.output().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if !ran.status.success() {
        bail!("{command:?} ended with {}: {}", ran.status, String::from_utf8_lossy(&ran.stderr).trim());
    }
    Ok(())
}
