//! A lab that is up: making it, its processes, taking it down.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::files::{self, Settings};
use super::layout::{self, Room, Shape, Way};
use super::process::{self, Identity};
use super::state::{Made, Process, State, inode};
use super::{Error, Name, command, need_root};
use crate::mgmt::admin::client::Client;
use crate::mgmt::control;

/// For a process to be ready, on a machine that is busy.
const READY: Duration = Duration::from_secs(60);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(50);
/// The process behind the server's ports.
pub const SERVER: &str = "server";
/// The gateway.
pub const GATEWAY: &str = "gateway";

/// Says when it is time to stop waiting.
pub type Stop<'a> = &'a dyn Fn() -> bool;

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    name: Name,
    state: State,
    settings: Settings,
    /// Those that this process started: they are to be asked for their exit codes.
    children: Vec<Child>,
    stays: bool,
}

/// What was cleared away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Was there anything?
    pub was_up: bool,
    /// Processes that were ended.
    pub processes: usize,
    /// Namespaces that were removed.
    pub namespaces: usize,
    /// What was left alone, and why.
    pub notes: Vec<String>,
}

impl Lab {
    /// Makes it, whatever a crash has left behind under that name. When this is dropped everything is taken down again, unless it [stays](Lab::stay).
    pub fn up(name: &Name, shape: Shape, settings: Settings, stop: Stop<'_>) -> Result<Lab, Error> {
        need_root()?;
        command::need_programs()?;
        if let Some(state) = State::load(name)? {
            match (state.used_by(), &state.owner) {
                (Some(pid), _) => return Err(Error::InUse { name: name.as_str().to_owned(), pid }),
                // It was made to stay, and does.
                (None, None) if state.processes.iter().any(|process| process.identity.is_alive()) => {
                    return Err(Error::IsUp(name.as_str().to_owned()));
                }
                _ => {
                    clear(name, Some(&state), false)?;
                }
            }
        }
        let namespaces: Vec<String> = Room::all(&shape).into_iter().map(|room| room.of(name)).collect();
        if let Some(foreign) = namespaces.iter().find(|namespace| inode(namespace).is_some()) {
            return Err(Error::Foreign(foreign.clone()));
        }
        let state = State {
            name: name.as_str().to_owned(),
            owner: Identity::here(),
            shape,
            namespaces: namespaces.into_iter().map(|name| Made { name, inode: None }).collect(),
            processes: Vec::new(),
        };
        state.save(name)?;
        // From here on everything is taken down if something fails.
        let mut lab = Lab { name: name.clone(), state, settings, children: Vec::new(), stays: false };
        lab.make()?;
        lab.start_all(stop)?;
        Ok(lab)
    }

    fn make(&mut self) -> Result<(), Error> {
        let folder = self.name.folder();
        let _ = std::fs::remove_dir_all(&folder); // of a lab whose state file is gone
        std::fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;
        for made in &mut self.state.namespaces {
            command::Line::new(&format!("ip netns add {}", made.name)).run()?;
            made.inode = inode(&made.name);
        }
        self.state.save(&self.name)?;
        layout::commands(&self.name, &self.state.shape).iter().try_for_each(|line| line.run().map(drop))
    }

    fn start_all(&mut self, stop: Stop<'_>) -> Result<(), Error> {
        self.start_server(stop)?;
        if self.state.shape.way == Way::Wire {
            return Ok(());
        }
        let shape = self.state.shape.clone();
        let appliances = || (1..=shape.appliances).filter(|number| !shape.absent.contains(number));
        for number in appliances() {
            self.start_appliance(number)?;
        }
        let file = files::gateway(&self.name, &shape)?;
        let arguments = files::gateway_arguments(&file, &self.settings);
        self.start(GATEWAY, Room::Gateway, arguments)?;
        for number in appliances() {
            self.wait_ready(&layout::appliance(number), stop)?;
        }
        let log = files::log(&self.name, GATEWAY);
        self.wait(GATEWAY, stop, &|| files::last_of(&log, "started").is_some())
    }

    /// It stays when this is dropped.
    pub fn stay(mut self) -> Result<(), Error> {
        self.stays = true;
        self.state.owner = None;
        self.state.save(&self.name)
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What it looks like.
    pub fn shape(&self) -> &Shape {
        &self.state.shape
    }

    /// A process of this name, started last.
    pub fn process(&self, name: &str) -> Option<&Identity> {
        self.state
            .processes
            .iter()
            .rev()
            .find(|process| process.name == name)
            .map(|process| &process.identity)
    }

    /// A command in one of the namespaces.
    pub fn command(&self, room: Room, arguments: &[String]) -> Command {
        process::command(&self.name, &room.of(&self.name), arguments)
    }

    /// Starts one of the program's own subcommands in a namespace.
    fn start(&mut self, name: &str, room: Room, arguments: Vec<String>) -> Result<(), Error> {
        let log = files::log(&self.name, name);
        let program =
            std::env::current_exe().map_err(|error| Error::file(Path::new("/proc/self/exe"), error))?;
        let mut all = vec![program.display().to_string()];
        all.extend(arguments);
        let child = process::start(&mut self.command(room, &all), &log)?;
        let identity = Identity::of(child.id());
        self.children.push(child);
        let gone = || Error::Process {
            name: name.to_owned(),
            what: "ended at once".into(),
            said: process::tail(&log),
        };
        self.state.processes.push(Process { name: name.to_owned(), identity: identity.ok_or_else(gone)? });
        self.state.save(&self.name)
    }

    fn start_server(&mut self, stop: Stop<'_>) -> Result<(), Error> {
        let ports = super::probe::Ports::default();
        let arguments =
            ["lab", "probe", "serve", "--web", &ports.web.to_string(), "--echo", &ports.echo.to_string()];
        self.start(SERVER, Room::Server, arguments.map(str::to_owned).into())?;
        let log = files::log(&self.name, SERVER);
        let is_ready = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("\"ready\""));
        self.wait(SERVER, stop, &is_ready)
    }

    /// Starts an appliance, or starts one that has ended again, with the file that it had.
    pub fn start_appliance(&mut self, number: usize) -> Result<(), Error> {
        let name = layout::appliance(number);
        let file = match self.process(&name) {
            Some(_) => self.name.folder().join(&name).join("pipeline.toml"),
            None => files::pipeline(&self.name, number, self.settings.pipeline.as_deref())?,
        };
        let arguments = files::appliance_arguments(&self.name, number, &file, &self.settings);
        self.start(&name, Room::Appliance(number), arguments)
    }

    /// Waits until an appliance says that it is fit for traffic.
    pub fn wait_ready(&mut self, name: &str, stop: Stop<'_>) -> Result<(), Error> {
        let client = self.client(name);
        self.wait(name, stop, &|| client.get("status", &[]).is_ok_and(|status| status["fit"] == true))
    }

    /// Waits for something of a process that has to be alive meanwhile.
    fn wait(&mut self, name: &str, stop: Stop<'_>, is_there: &dyn Fn() -> bool) -> Result<(), Error> {
        let deadline = Instant::now() + READY;
        while !is_there() {
            let failed = |what: &str| Error::Process {
                name: name.to_owned(),
                what: what.to_owned(),
                said: process::tail(&files::log(&self.name, name)),
            };
            if !self.process(name).is_some_and(Identity::is_alive) {
                return Err(failed("ended"));
            }
            if Instant::now() > deadline {
                return Err(failed("is not ready after a minute"));
            }
            if stop() {
                return Err(Error::Interrupted);
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Sends a signal to a process.
    pub fn signal(&self, name: &str, signal: Signal) {
        if let Some(identity) = self.process(name) {
            identity.signal(signal);
        }
    }

    /// Ends a process at once, and waits until it is gone.
    pub fn kill(&mut self, name: &str) {
        if let Some(identity) = self.process(name) {
            identity.end(false);
        }
        self.reap();
    }

    /// Asks for exit codes, so that nobody stays as a zombie.
    fn reap(&mut self) {
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    /// The way to an appliance.
    pub fn client(&self, name: &str) -> Client {
        Client::new(&files::socket(&self.name, name))
    }

    /// What an instance answers; the gateway has told its counters without being asked.
    pub fn answer(&self, name: &str, what: &str) -> Result<serde_json::Value, String> {
        if name == GATEWAY {
            let told = files::last_of(&files::log(&self.name, GATEWAY), what);
            return told
                .ok_or_else(|| format!("the gateway has told no {what:?} so far; it tells \"stats\""));
        }
        self.client(name).get(what, &[]).map_err(|error| error.to_string())
    }

    /// A command for an instance.
    pub fn ask(&self, name: &str, command: control::Command) -> Result<serde_json::Value, Error> {
        let refused = |what: String| Error::Refused { name: name.to_owned(), what };
        let answer = self.client(name).post("command", &[], &control::request(command));
        let answer = answer.map_err(|error| refused(error.to_string()))?;
        if answer["ok"] == true {
            return Ok(answer);
        }
        let lines = answer["lines"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
        let said: Vec<&str> = lines.chain(answer["text"].as_str()).collect();
        Err(refused(said.join("\n")))
    }

    /// Puts another pipeline file in place, and has the appliance load it.
    pub fn reload(&self, number: usize, file: Option<&Path>) -> Result<(), Error> {
        if let Some(file) = file {
            files::pipeline(&self.name, number, Some(file))?;
        }
        self.ask(&layout::appliance(number), control::Command::Reload).map(drop)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        // Politely, so that what goes wrong at the end is in the logs. Whatever fails here is left to the next `down`.
        let _ = clear(&self.name, Some(&self.state), true);
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Takes a lab down, whoever made it and however that ended. A lab that is not there is down.
pub fn down(name: &Name) -> Result<Cleared, Error> {
    need_root()?;
    command::need_programs()?;
    let state = State::load(name)?;
    if let Some(pid) = state.as_ref().and_then(State::used_by) {
        return Err(Error::InUse { name: name.as_str().to_owned(), pid });
    }
    clear(name, state.as_ref(), true)
}

/// Ends processes, removes namespaces and files.
fn clear(name: &Name, state: Option<&State>, politely: bool) -> Result<Cleared, Error> {
    let mut cleared = Cleared { was_up: state.is_some(), ..Cleared::default() };
    let written = state.map(|state| state.processes.as_slice()).unwrap_or_default();
    let mut alive: Vec<Identity> = written.iter().map(|process| process.identity.clone()).collect();
    alive.extend(
        process::marked(name).into_iter().filter(|identity| !written.iter().any(|w| w.identity == *identity)),
    );
    alive.retain(Identity::is_alive);
    cleared.processes = alive.len();
    if politely {
        alive.iter().for_each(|identity| identity.signal(Signal::TERM));
    }
    alive.iter().for_each(|identity| identity.end(politely));
    for made in state.map(|state| state.namespaces.as_slice()).unwrap_or_default() {
        let Some(there) = inode(&made.name) else { continue };
        if made.inode.is_some_and(|ours| ours != there) {
            cleared
                .notes
                .push(format!("network namespace {} is another one than the lab made, and stays", made.name));
            continue;
        }
        for pid in guests(&made.name) {
            cleared.notes.push(format!(
                "process {pid} is still in {}, and not the lab's: it keeps what is left of it",
                made.name
            ));
        }
        command::Line::new(&format!("ip netns del {}", made.name)).run()?;
        cleared.namespaces += 1;
    }
    for process in written {
        // DPDK removes what it made, unless it was killed.
        let _ = std::fs::remove_dir_all(Path::new("/run/dpdk").join(files::prefix(name, &process.name)));
    }
    let _ = std::fs::remove_dir_all(name.folder());
    match std::fs::remove_file(name.state()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file(&name.state(), error)),
        _ => Ok(cleared),
    }
}

/// Processes in a namespace.
fn guests(namespace: &str) -> Vec<u32> {
    let said = command::Line::new(&format!("ip netns pids {namespace}")).run().unwrap_or_default();
    said.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
