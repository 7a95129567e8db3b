//! The plugin's configuration.

use multus_cni::{Args, Dns, FieldError, Invocation, MacAddress, Object, shortened};
use multus_net::MacvlanMode;

use crate::Error;

/// A macvlan network as configured, with what the runtime asks for this attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// `master`: the parent's name, or one of its alternative names. The interface of the default route when absent.
    pub master: Option<String>,
    /// `mode`: how the link relates to its siblings; bridge when absent.
    pub mode: MacvlanMode,
    /// `mtu` in bytes; the parent's when 0.
    pub mtu: i64,
    /// The hardware address: `runtimeConfig.mac`, else `MAC` of `CNI_ARGS`, else `mac`; a random one when absent.
    pub mac: Option<MacAddress>,
    /// `linkInContainer`: the parent is a link of the sandbox.
    pub link_in_container: bool,
    /// `bcqueuelen`: length of the parent's broadcast queue in packets; the kernel's default when absent.
    pub broadcast_queue_length: Option<u32>,
    /// `bclim`: multicast traffic to more links than this goes through the broadcast queue, less than 0: none does.
    /// The kernel's default when absent.
    pub broadcast_cutoff: Option<i32>,
    /// `nopromisc` in `flags`: in mode passthru, leaves the parent's promiscuous mode alone.
    pub no_promiscuous: bool,
    /// `nodst` in `flags`: in mode source, does not receive what is addressed to the link's own MAC.
    pub no_destination: bool,
    /// `sourceMacs`: in mode source, whose packets the link receives.
    pub source_macs: Vec<MacAddress>,
    /// `optimisticDAD`: use IPv6 addresses at once, while the kernel still looks for duplicates; on when absent.
    pub optimistic_dad: bool,
    /// `ipam.type`: which plugin gives addresses; none for a link without any.
    pub ipam: Option<String>,
    /// `dns`, reported as it is.
    pub dns: Dns,
}

/// All of them must fit into one netlink attribute of 64 KiB, whenever the kernel tells of the link.
const MAX_SOURCE_MACS: usize = 1000;

impl Config {
    /// Reads the configuration of an ADD, CHECK or STATUS.
    ///
    /// # Errors
    /// The first key that is malformed, and malformed `CNI_ARGS`.
    pub fn parse(invocation: &Invocation) -> Result<Self, Error> {
        let view = invocation.config.view();
        // It says who was called, which is known by now; the Go plugin refuses what is no string all the same.
        view.string("type")?;
        let mode = mode(view.string("mode")?.unwrap_or_default())?;
        if let Some(capabilities) = view.object("capabilities")? {
            capabilities.items().filter(|item| !item.is_null()).try_for_each(|item| item.boolean().map(drop))?;
        }
        let config = Self {
            master: view.string("master")?.filter(|name| !name.is_empty()).map(str::to_owned),
            mode,
            mtu: view.integer("mtu")?.unwrap_or(0),
            mac: requested_mac(&view, &invocation.args)?,
            link_in_container: view.boolean("linkInContainer")?.unwrap_or(false),
            broadcast_queue_length: view.integer("bcqueuelen")?.filter(|length| *length > 0),
            broadcast_cutoff: view.integer("bclim")?,
            no_promiscuous: has_flag(&view, "nopromisc")?,
            no_destination: has_flag(&view, "nodst")?,
            source_macs: source_macs(&view, mode)?,
            optimistic_dad: view.boolean("optimisticDAD")?.unwrap_or(true),
            ipam: ipam(invocation)?,
            dns: view.object("dns")?.map(|dns| Dns::parse(&dns)).transpose()?.unwrap_or_default(),
        };
        Ok(config)
    }

    /// Reads `ipam.type`: all that DEL and GC need, so that what was made can always be deleted.
    ///
    /// # Errors
    /// When it is not a string.
    pub fn ipam(invocation: &Invocation) -> Result<Option<String>, Error> {
        Ok(invocation.config.ipam_type()?.map(str::to_owned))
    }
}

fn ipam(invocation: &Invocation) -> Result<Option<String>, Error> {
    match Config::ipam(invocation)? {
        // It would execute itself without end.
        Some(kind) if kind == "macvlan" => {
            Err(FieldError::new("ipam.type", "must be an IPAM plugin, which macvlan is not").into())
        }
        kind => Ok(kind),
    }
}

fn mode(text: &str) -> Result<MacvlanMode, Error> {
    if text.is_empty() {
        return Ok(MacvlanMode::default());
    }
    let known = MacvlanMode::ALL.into_iter().find(|mode| mode.as_str() == text);
    known.ok_or_else(|| Error::UnknownMode(text.to_owned()))
}

fn requested_mac(view: &Object<'_>, args: &str) -> Result<Option<MacAddress>, Error> {
    let args = Args::parse(args, &["MAC"])?;
    let runtime = view.object("runtimeConfig")?.map(|runtime| runtime.string("mac")).transpose()?.flatten();
    let given = [runtime, args.value("MAC"), view.string("mac")?];
    let chosen = given.into_iter().flatten().find(|text| !text.is_empty());
    chosen.map(mac).transpose()
}

fn mac(text: &str) -> Result<MacAddress, Error> {
    let refuse = |problem| Error::Mac { mac: text.to_owned(), problem };
    let mac: MacAddress = text.parse().map_err(refuse)?;
    if mac.is_multicast() {
        return Err(refuse("cannot assign requested address: it is a multicast address"));
    }
    Ok(mac)
}

fn has_flag(view: &Object<'_>, flag: &str) -> Result<bool, FieldError> {
    let flags = view.strings("flags")?;
    if let Some(unknown) = flags.iter().find(|flag| !matches!(flag.as_str(), "nopromisc" | "nodst")) {
        let problem = format!("must be a list of \"nopromisc\" and \"nodst\", not {:?}", shortened(unknown));
        return Err(FieldError::new("flags", problem));
    }
    Ok(flags.iter().any(|given| given == flag))
}

fn source_macs(view: &Object<'_>, mode: MacvlanMode) -> Result<Vec<MacAddress>, Error> {
    let macs = view.strings("sourceMacs")?;
    if !macs.is_empty() && mode != MacvlanMode::Source {
        let problem = format!("is for \"mode\":\"source\", and the mode is {:?}", mode.as_str());
        return Err(FieldError::new("sourceMacs", problem).into());
    }
    if macs.len() > MAX_SOURCE_MACS {
        return Err(FieldError::new("sourceMacs", format_args!("must have at most {MAX_SOURCE_MACS} entries")).into());
    }
    macs.iter().map(|text| mac(text)).collect()
}
