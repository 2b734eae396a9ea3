//! The function contexts of a session, with their variables, arguments and results. Pure.

use std::collections::BTreeMap;

use super::proto::{FunctionDetails, ServiceResult, Variable, variable};

/// The context of the session itself.
pub(super) const ROOT: u32 = 0;
/// How deep functions may call each other: a guard against a function that calls itself without end.
const MAX_DEPTH: usize = 32;
/// How many variables a scope holds. Scripts use a few.
const MAX_VARIABLES: usize = 1000;
/// How many bytes the variables of a scope may have: a flash file fits, and a session stays small.
const MAX_BYTES: usize = 4 << 20;

/// Why a call about contexts or variables failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ContextError {
    #[error("the function context is finished")]
    Finished,
    #[error("no function context was started; call startFunctionContext first")]
    NoCall,
    #[error("no function details are registered in this context")]
    NoDetails,
    #[error("there is no variable \"{0}\" in this scope")]
    NoVariable(String),
    #[error("a variable needs a key")]
    NoKey,
    #[error("variable \"{0}\" has neither a value nor an object")]
    NoValue(String),
    #[error("the scope of variables is undefined; use the global, function or connection context")]
    NoScope,
    #[error("a scope holds at most {MAX_VARIABLES} variables and {MAX_BYTES} bytes")]
    Full,
    #[error("functions call each other more than {MAX_DEPTH} deep")]
    TooDeep,
}

/// A set of variables.
#[derive(Debug, Default)]
pub(super) struct Variables {
    map: BTreeMap<String, Variable>,
    bytes: usize,
}

fn size(variable: &Variable) -> usize {
    variable.key.len()
        + match &variable.val {
            Some(variable::Val::Value(text)) => text.len(),
            Some(variable::Val::Object(object)) => object.type_url.len() + object.value.len(),
            None => 0,
        }
}

impl Variables {
    /// Sets a variable, replacing the one with the same key.
    pub(super) fn set(&mut self, variable: Variable) -> Result<(), ContextError> {
        if variable.key.is_empty() {
            return Err(ContextError::NoKey);
        }
        if variable.val.is_none() {
            return Err(ContextError::NoValue(variable.key));
        }
        let old = self.map.get(&variable.key).map(size);
        let bytes = self.bytes - old.unwrap_or_default() + size(&variable);
        if bytes > MAX_BYTES || (old.is_none() && self.map.len() >= MAX_VARIABLES) {
            return Err(ContextError::Full);
        }
        self.bytes = bytes;
        self.map.insert(variable.key.clone(), variable);
        Ok(())
    }

    /// The variable with this key.
    pub(super) fn get(&self, key: &str) -> Result<Variable, ContextError> {
        self.map.get(key).cloned().ok_or_else(|| ContextError::NoVariable(key.to_owned()))
    }

    /// Removes the variable with this key.
    pub(super) fn delete(&mut self, key: &str) -> Result<(), ContextError> {
        let removed = self.map.remove(key).ok_or_else(|| ContextError::NoVariable(key.to_owned()))?;
        self.bytes -= size(&removed);
        Ok(())
    }

    /// The variables whose keys begin with this text, in the order of their keys.
    pub(super) fn list(&self, prefix: &str) -> Vec<Variable> {
        self.map.values().filter(|variable| variable.key.starts_with(prefix)).cloned().collect()
    }
}

/// The context of one call of a function.
#[derive(Debug, Default)]
pub(super) struct Context {
    parent: Option<u32>,
    /// The context of the function that this one called last.
    call: Option<u32>,
    depth: usize,
    is_authenticated: bool,
    result: Option<ServiceResult>,
    details: Option<FunctionDetails>,
    arguments: Variables,
    results: Variables,
    pub(super) variables: Variables,
}

/// What `finish` has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The whole session.
    Session,
    /// A function.
    Function,
}

/// The contexts of a session.
#[derive(Debug)]
pub(super) struct Contexts {
    list: BTreeMap<u32, Context>,
    next: u32,
    pub(super) global: Variables,
}

impl Contexts {
    /// The contexts of a session that has called no function.
    pub(super) fn new() -> Self {
        let list = BTreeMap::from([(ROOT, Context::default())]);
        Self { list, next: ROOT + 1, global: Variables::default() }
    }

    /// A context that is not finished.
    pub(super) fn open(&mut self, id: u32) -> Result<&mut Context, ContextError> {
        let context = self.list.get_mut(&id).ok_or(ContextError::Finished)?;
        if context.result.is_some() { Err(ContextError::Finished) } else { Ok(context) }
    }

    /// The result of a finished context. A context that was replaced by a later one counts as finished.
    pub(super) fn result(&self, id: u32) -> Option<ServiceResult> {
        match self.list.get(&id) {
            Some(context) => context.result.clone(),
            None => Some(ServiceResult::default()),
        }
    }

    /// Begins to work in a context.
    pub(super) fn authenticate(&mut self, id: u32) -> Result<(), ContextError> {
        self.open(id)?.is_authenticated = true;
        Ok(())
    }

    /// The caller of a context, if the caller works without having authenticated itself.
    pub(super) fn unauthenticated_caller(&self, id: u32) -> Option<u32> {
        let caller = self.list.get(&id)?.parent?;
        self.list.get(&caller).filter(|caller| !caller.is_authenticated && caller.result.is_none())?;
        Some(caller)
    }

    /// Starts the context of a function that context `id` is about to call. The previous call's context is forgotten.
    pub(super) fn start_call(&mut self, id: u32) -> Result<u32, ContextError> {
        let next = self.next;
        let caller = self.open(id)?;
        let depth = caller.depth + 1;
        if depth > MAX_DEPTH {
            return Err(ContextError::TooDeep);
        }
        if let Some(previous) = caller.call.replace(next) {
            self.forget(previous);
        }
        self.next += 1;
        self.list.insert(next, Context { parent: Some(id), depth, ..Context::default() });
        Ok(next)
    }

    fn forget(&mut self, id: u32) {
        let mut doomed = vec![id];
        while let Some(id) = doomed.pop() {
            self.list.remove(&id);
            doomed.extend(
                self.list.iter().filter(|(_, context)| context.parent == Some(id)).map(|(id, _)| *id),
            );
        }
    }

    /// The context of the function that context `id` called last.
    fn call(&mut self, id: u32) -> Result<&mut Context, ContextError> {
        let call = self.open(id)?.call.ok_or(ContextError::NoCall)?;
        self.list.get_mut(&call).ok_or(ContextError::NoCall)
    }

    /// Sets an argument of the function that context `id` is about to call.
    pub(super) fn set_argument(&mut self, id: u32, argument: Variable) -> Result<(), ContextError> {
        let call = self.call(id)?;
        if call.result.is_some() {
            return Err(ContextError::NoCall);
        }
        call.arguments.set(argument)
    }

    /// The arguments with which context `id` was called.
    pub(super) fn arguments(&mut self, id: u32) -> Result<Vec<Variable>, ContextError> {
        Ok(self.open(id)?.arguments.list(""))
    }

    /// Sets a result of context `id`.
    pub(super) fn set_result(&mut self, id: u32, result: Variable) -> Result<(), ContextError> {
        self.open(id)?.results.set(result)
    }

    /// The results of the function that context `id` called last.
    pub(super) fn results(&mut self, id: u32) -> Result<Vec<Variable>, ContextError> {
        Ok(self.call(id)?.results.list(""))
    }

    /// Registers which function runs in context `id`.
    pub(super) fn register(&mut self, id: u32, details: FunctionDetails) -> Result<(), ContextError> {
        self.open(id)?.details = Some(details);
        Ok(())
    }

    /// Which function runs in context `id`.
    pub(super) fn details(&mut self, id: u32) -> Result<FunctionDetails, ContextError> {
        self.open(id)?.details.clone().ok_or(ContextError::NoDetails)
    }

    /// Finishes context `id`, and the functions that run on its behalf.
    ///
    /// A client whose call could not begin finishes the call with its own token. So while the function that was called
    /// has not authenticated itself, that function's context is the one that ends.
    pub(super) fn finish(&mut self, id: u32, result: &ServiceResult) -> Result<Ended, ContextError> {
        let call = self.open(id)?.call;
        let waiting = call.and_then(|call| self.list.get_mut(&call));
        if let Some(waiting) = waiting.filter(|call| !call.is_authenticated && call.result.is_none()) {
            waiting.result = Some(result.clone());
            return Ok(Ended::Function);
        }
        let mut ending = Some(id);
        while let Some(context) = ending.and_then(|id| self.list.get_mut(&id)) {
            context.result.get_or_insert_with(|| result.clone());
            ending = context.call;
        }
        Ok(if id == ROOT { Ended::Session } else { Ended::Function })
    }
}
