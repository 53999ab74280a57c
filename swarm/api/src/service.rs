//! Services: the wish, the previous wish, and how far the cluster is. No reconciliation here.

use crate::go::{Duration, Labels, Timestamp, Version, float32, null_default, null_if_empty};
use crate::network::{Endpoint, EndpointSpec, NetworkAttachmentConfig};
use crate::task::TaskSpec;

open_enum! {
    /// What happens when an update fails.
    pub enum FailureAction {
        /// Stop and wait; the default.
        Pause = "pause",
        /// Go on.
        Continue = "continue",
        /// Go back to the previous spec.
        Rollback = "rollback",
    }

    /// In which order an update replaces a task.
    pub enum UpdateOrder {
        /// Old down, then new up; the default.
        StopFirst = "stop-first",
        /// New up, then old down.
        StartFirst = "start-first",
    }

    /// How far an update is.
    pub enum UpdateState {
        /// Under way.
        Updating = "updating",
        /// Stopped after failures.
        Paused = "paused",
        /// Done.
        Completed = "completed",
        /// Going back.
        RollbackStarted = "rollback_started",
        /// Stopped while going back.
        RollbackPaused = "rollback_paused",
        /// Gone back.
        RollbackCompleted = "rollback_completed",
    }
}

wire! {
    /// GET /services/{id}
    pub struct Service {
        id: String = "ID",
        version: Version = "Version",
        created_at: Timestamp = "CreatedAt",
        updated_at: Timestamp = "UpdatedAt",
        spec: ServiceSpec = "Spec",
        previous_spec: Option<ServiceSpec> = "PreviousSpec" omitempty,
        endpoint: Endpoint = "Endpoint",
        update_status: Option<UpdateStatus> = "UpdateStatus" omitempty,
        /// Only in lists, and only when asked for.
        service_status: Option<ServiceStatus> = "ServiceStatus" omitempty,
        /// Only for jobs.
        job_status: Option<JobStatus> = "JobStatus" omitempty,
    }

    /// POST /services/create and /services/{id}/update
    pub struct ServiceSpec {
        name: String = "Name" omitempty,
        #[serde(deserialize_with = "null_default")]
        labels: Labels = "Labels",
        task_template: TaskSpec = "TaskTemplate",
        mode: ServiceMode = "Mode",
        update_config: Option<UpdateConfig> = "UpdateConfig" omitempty,
        rollback_config: Option<UpdateConfig> = "RollbackConfig" omitempty,
        /// Old clients put networks here; honoured below API 1.44.
        #[serde(deserialize_with = "null_default")]
        networks: Vec<NetworkAttachmentConfig> = "Networks" omitempty,
        endpoint_spec: Option<EndpointSpec> = "EndpointSpec" omitempty,
    }

    /// At most one of the four; none is replicated with one replica.
    #[derive(Eq)]
    pub struct ServiceMode {
        replicated: Option<ReplicatedService> = "Replicated" omitempty,
        global: Option<GlobalService> = "Global" omitempty,
        replicated_job: Option<ReplicatedJob> = "ReplicatedJob" omitempty,
        global_job: Option<GlobalJob> = "GlobalJob" omitempty,
    }

    /// So many tasks anywhere.
    #[derive(Eq)]
    pub struct ReplicatedService {
        replicas: Option<u64> = "Replicas" omitempty,
    }

    /// One task on every node.
    #[derive(Eq)]
    pub struct GlobalService {}

    /// So many runs to completion.
    #[derive(Eq)]
    pub struct ReplicatedJob {
        max_concurrent: Option<u64> = "MaxConcurrent" omitempty,
        total_completions: Option<u64> = "TotalCompletions" omitempty,
    }

    /// One run to completion on every node.
    #[derive(Eq)]
    pub struct GlobalJob {}

    /// How an update or a rollback proceeds.
    pub struct UpdateConfig {
        /// Tasks at a time; 0 is all.
        parallelism: u64 = "Parallelism",
        delay: Duration = "Delay" omitempty,
        failure_action: FailureAction = "FailureAction" omitempty,
        /// How long a new task is watched; 0 is 5 s.
        monitor: Duration = "Monitor" omitempty,
        /// 0 to 1.
        #[serde(serialize_with = "float32")]
        max_failure_ratio: f32 = "MaxFailureRatio",
        order: UpdateOrder = "Order",
    }

    /// How far an update is, and why.
    #[derive(Eq)]
    pub struct UpdateStatus {
        state: UpdateState = "State" omitempty,
        started_at: Option<Timestamp> = "StartedAt" omitempty,
        completed_at: Option<Timestamp> = "CompletedAt" omitempty,
        message: String = "Message" omitempty,
    }

    /// Counts for `service ls`.
    #[derive(Copy, Eq)]
    pub struct ServiceStatus {
        running_tasks: u64 = "RunningTasks",
        desired_tasks: u64 = "DesiredTasks",
        completed_tasks: u64 = "CompletedTasks",
    }

    /// Which run of a job this is.
    #[derive(Copy, Eq)]
    pub struct JobStatus {
        job_iteration: Version = "JobIteration",
        last_execution: Timestamp = "LastExecution",
    }

    /// The answer to a create.
    #[derive(Eq)]
    pub struct ServiceCreateResponse {
        id: String = "ID" omitempty,
        #[serde(deserialize_with = "null_default", serialize_with = "null_if_empty")]
        warnings: Vec<String> = "Warnings",
    }

    /// The answer to an update.
    #[derive(Eq)]
    pub struct ServiceUpdateResponse {
        #[serde(deserialize_with = "null_default", serialize_with = "null_if_empty")]
        warnings: Vec<String> = "Warnings",
    }
}
