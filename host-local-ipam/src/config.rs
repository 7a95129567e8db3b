//! The plugin's configuration.

use std::{net::IpAddr, path::PathBuf};

use multus_cni::{
    Args, Cidr, FieldError, Invocation, Item, NetworkConfig, Object, Route, Version, parse_ip, shortened,
};

use crate::{DiskStore, Error, Range, RangeError, RangeSet};

/// Everything ADD, CHECK and STATUS need, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// One address is given from each of these.
    pub sets: Vec<RangeSet>,
    /// Routes to report.
    pub routes: Vec<Route>,
    /// A resolv.conf to report.
    pub resolv_conf: Option<PathBuf>,
    /// Addresses asked for: by `CNI_ARGS`, `args.cni.ips`, `runtimeConfig.ips`.
    pub wanted: Vec<IpAddr>,
}

impl Config {
    /// Reads the `ipam` object of a network configuration, and what the runtime adds to it.
    ///
    /// # Errors
    /// The first key that is malformed, and the first range that is not usable.
    pub fn parse(invocation: &Invocation) -> Result<Self, Error> {
        let network = invocation.config.view();
        let ipam = network.object("ipam")?.ok_or(Error::MissingIpam)?;
        let args = Args::parse(&invocation.args, &["IP"])?;
        let runtime = network.object("runtimeConfig")?;

        let mut wanted = Vec::new();
        if let Some(text) = args.value("IP") {
            wanted.push(wanted_address(text, "").map_err(|error| in_args(text, &error))?);
        }
        let cni_args = network.object("args")?.map(|args| args.object("cni")).transpose()?.flatten();
        for (object, key) in [(&cni_args, "ips"), (&runtime, "ips")] {
            for item in object.as_ref().map_or(Ok(Vec::new()), |object| object.array(key))? {
                wanted.push(wanted_address(item.string()?, item.path())?);
            }
        }

        let mut sets = Vec::new();
        if let Some(runtime) = &runtime {
            sets.extend(range_sets(runtime, "ipRanges")?);
        }
        // Malformed addresses are an error even where nothing else of the old form is there.
        let single = UncheckedRange::parse(&ipam)?;
        sets.extend(single.subnet.is_some().then(|| vec![single]));
        sets.extend(range_sets(&ipam, "ranges")?);
        ipam.string("type")?;
        ipam.string("name")?;
        ipam.boolean("durable")?;

        Ok(Self {
            sets: checked(sets, &invocation.config)?,
            routes: ipam.array("routes")?.iter().map(|item| Route::parse(&item.object()?)).collect::<Result<_, _>>()?,
            resolv_conf: path(&ipam, "resolvConf")?,
            wanted,
        })
    }

    /// Where the reservations are; all that DEL and GC need, so that what was reserved can always be released.
    ///
    /// # Errors
    /// When `ipam` or `ipam.dataDir` is of a wrong type, or that can be no path.
    pub fn data_dir(config: &NetworkConfig) -> Result<PathBuf, FieldError> {
        let ipam = config.view().object("ipam")?;
        let given = ipam.map(|ipam| path(&ipam, "dataDir")).transpose()?.flatten();
        Ok(given.unwrap_or_else(|| DiskStore::DEFAULT_DATA_DIR.into()))
    }

    /// Whether `ipam.durable` asks for reservations that survive a loss of power. What [`parse`](Self::parse) refuses does
    /// not.
    #[must_use]
    pub fn is_durable(config: &NetworkConfig) -> bool {
        let ipam = config.view().object("ipam").ok().flatten();
        ipam.and_then(|ipam| ipam.boolean("durable").ok().flatten()).unwrap_or_default()
    }
}

/// In bytes, without the NUL behind it; the kernel takes no longer ones.
const LONGEST_PATH: usize = 4095;

/// The path that `key` names; an empty one is none.
fn path(object: &Object<'_>, key: &str) -> Result<Option<PathBuf>, FieldError> {
    let text = object.string(key)?.filter(|path| !path.is_empty());
    if let Some(text) = text.filter(|text| text.len() > LONGEST_PATH || text.contains('\0')) {
        let text = shortened(text);
        let problem = format!("must be a path of at most {LONGEST_PATH} bytes without NUL, not {text:?}");
        return Err(FieldError::new(object.path_of(key), problem));
    }
    Ok(text.map(PathBuf::from))
}

/// A range as written.
struct UncheckedRange {
    subnet: Option<Cidr>,
    first: Option<IpAddr>,
    last: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

impl UncheckedRange {
    fn parse(object: &Object<'_>) -> Result<Self, FieldError> {
        let subnet = object.item_or_null("subnet").map(|item| {
            let text = if item.is_null() { "" } else { item.string()? };
            text.parse().map_err(|error| FieldError::new(item.path(), format_args!("must be a network: {error}")))
        });
        let address = |key| match object.string(key)? {
            None | Some("") => Ok(None),
            Some(text) => parse_ip(text).map(Some).ok_or_else(|| {
                FieldError::new(object.path_of(key), format_args!("invalid IP address: {}", shortened(text)))
            }),
        };
        Ok(Self {
            subnet: subnet.transpose()?,
            first: address("rangeStart")?,
            last: address("rangeEnd")?,
            gateway: address("gateway")?,
        })
    }

    fn check(self) -> Result<Range, RangeError> {
        Range::within(self.subnet.ok_or(RangeError::NoSubnet)?, self.first, self.last, self.gateway)
    }
}

fn range_sets(object: &Object<'_>, key: &str) -> Result<Vec<Vec<UncheckedRange>>, FieldError> {
    let range = |item: &Item<'_>| UncheckedRange::parse(&item.object()?);
    let set = |item: &Item<'_>| match item.is_null() {
        true => Ok(Vec::new()),
        false => item.array()?.iter().map(range).collect(),
    };
    object.array(key)?.iter().map(set).collect()
}

fn checked(sets: Vec<Vec<UncheckedRange>>, config: &NetworkConfig) -> Result<Vec<RangeSet>, Error> {
    if sets.is_empty() {
        return Err(Error::NoRanges);
    }
    let mut checked: Vec<RangeSet> = Vec::new();
    for (index, ranges) in sets.into_iter().enumerate() {
        let ranges: Result<Vec<Range>, RangeError> = ranges.into_iter().map(UncheckedRange::check).collect();
        checked.push(ranges.and_then(RangeSet::new).map_err(|source| Error::RangeSet { index, source })?);
    }
    let ipv4 = checked.iter().filter(|set| set.is_ipv4()).count();
    if (ipv4 > 1 || checked.len() - ipv4 > 1) && config.version()? < Version::V0_3_0 {
        return Err(Error::TooManyForVersion(config.version_text()?.to_owned()));
    }
    for (index, set) in checked.iter().enumerate() {
        let overlapping = checked.iter().enumerate().skip(index + 1).find(|(_, other)| set.overlaps(other));
        if let Some((other, _)) = overlapping {
            return Err(Error::SetsOverlap(index, other));
        }
    }
    Ok(checked)
}

/// An address, whose prefix length, if there is one, does not matter.
fn wanted_address(text: &str, path: &str) -> Result<IpAddr, Error> {
    let address = match text.parse::<Cidr>() {
        Ok(cidr) => Some(cidr.address().to_canonical()),
        Err(_) => parse_ip(text),
    };
    address.ok_or_else(|| Error::RequestedAddress { text: text.to_owned(), path: path.to_owned() })
}

fn in_args(text: &str, error: &Error) -> Error {
    let pair = format!("IP={}", shortened(text));
    Error::Protocol(multus_cni::Error::Args(format!("error parsing value of pair {pair:?}: {error}")))
}
