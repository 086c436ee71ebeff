//! One end of a tunnel with fixed keys: the datapath alone, for measuring it. Runs until its standard input ends.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::{Arc, mpsc};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use esp::{Initial, LEASE_MIN, Start};
use gateway::datapath::{Datapath, DatapathConfig, Event, SaPair};
use wire::{Prefix, Secret, Spi, Tenure, TrafficSelector, UnknownFields};

/// One end of an ESP tunnel with fixed keys.
#[derive(Parser)]
struct Arguments {
    /// Which end this is.
    #[arg(value_enum)]
    end: End,
    /// Our outside address.
    #[arg(long)]
    local: IpAddr,
    /// The other end's outside address.
    #[arg(long)]
    peer: IpAddr,
    /// The TUN device to make.
    #[arg(long, default_value = "esp0")]
    tun: String,
    /// Its MTU.
    #[arg(long, default_value_t = 1400)]
    mtu: u16,
    /// Threads.
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    workers: NonZeroUsize,
    /// How many SA pairs of other peers to hold besides.
    #[arg(long, default_value_t = 0)]
    others: u32,
}

/// The two ends: the left one has 10.9.0.0/16 behind it, the right one 10.8.0.0/16.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum End {
    Left,
    Right,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (ours, theirs): (Prefix, Prefix) = match arguments.end {
        End::Left => ("10.9.0.0/16".parse()?, "10.8.0.0/16".parse()?),
        End::Right => ("10.8.0.0/16".parse()?, "10.9.0.0/16".parse()?),
    };
    let config = DatapathConfig {
        tun: arguments.tun.clone(),
        mtu: arguments.mtu,
        routes: vec![theirs],
        addresses: vec![arguments.local],
        workers: arguments.workers,
    };
    let (events, low) = mpsc::channel();
    let sink = move |event: Event| {
        if let Event::LeaseLow { spi_in, edge } = event {
            // The receiver lives as long as the process.
            let _ = events.send((spi_in, edge));
        }
    };
    let datapath = Arc::new(Datapath::start(&config, Arc::new(sink))?);
    for number in 0..arguments.others {
        // Hosts of 10.100.0.0 and up, which nobody uses.
        let host = IpAddr::from((0x0a64_0000 + number).to_be_bytes());
        install(&datapath, &arguments, number + 1, &[TrafficSelector::from_prefix(ours)], Prefix::host(host))?;
    }
    install(&datapath, &arguments, 0, &[TrafficSelector::from_prefix(ours)], theirs)?;
    let extender = Arc::clone(&datapath);
    std::thread::spawn(move || {
        for (spi_in, edge) in low {
            extender.extend_lease(spi_in, edge);
        }
    });
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new()).context("read the standard input")?;
    for (reason, count) in datapath.drops().into_iter().filter(|(_, count)| *count > 0) {
        println!("{} {count}", reason.label());
    }
    Ok(())
}

fn install(
    datapath: &Datapath,
    arguments: &Arguments,
    number: u32,
    local: &[TrafficSelector],
    remote: Prefix,
) -> Result<()> {
    let (left, right) = (Spi(0x0010_0000 + number * 0x800), Spi(0x0010_0400 + number * 0x800));
    let key = |fill| Secret::new(vec![fill; 20]);
    let ((spi_in, key_in), (spi_out, key_out)) = match arguments.end {
        End::Left => ((left, key(1)), (right, key(2))),
        End::Right => ((right, key(2)), (left, key(1))),
    };
    let initial = Initial {
        session: number.into(),
        spi_in,
        spi_out,
        encryption: 20,
        key_bits: 128,
        integrity: None,
        key_in,
        key_out,
        integrity_key_in: Secret::default(),
        integrity_key_out: Secret::default(),
        local: local.into(),
        remote: vec![TrafficSelector::from_prefix(remote)],
        birth_count: 0,
        replaces: None,
        opened_by_peer: false,
        path_local: SocketAddr::new(arguments.local, 4500),
        path_remote: SocketAddr::new(arguments.peer, 4500),
        unknown: UnknownFields::default(),
    };
    let start = Start::New { edge: 1 + LEASE_MIN };
    datapath.install(&SaPair { initial, tenure: Tenure::default(), start })?;
    Ok(())
}
