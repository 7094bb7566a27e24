//! Variables of the environment that tell something of a training. Every other one stays unseen.
//!
//! By name only, and never one that may hold a secret: what is not listed here is not captured.

use std::ffi::OsString;

use serde_json::{Map, Value};

use super::redact;

/// What random numbers begin with.
pub const SEEDS: [&str; 5] =
    ["GLOBAL_SEED", "PL_GLOBAL_SEED", "PYTHONHASHSEED", "RANDOM_SEED", "SEED"];

/// What makes the same code give other numbers.
pub const SETTINGS: [&str; 22] = [
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "LANG",
    "LOCAL_RANK",
    "MKL_CBWR",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "RANK",
    "ROCR_VISIBLE_DEVICES",
    "TF_CUDNN_DETERMINISTIC",
    "TF_DETERMINISTIC_OPS",
    "TF_ENABLE_ONEDNN_OPTS",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TZ",
    "WORLD_SIZE",
    "XLA_FLAGS",
];

/// Which job of which machinery ran it.
pub const JOBS: [&str; 48] = [
    "AIRFLOW_CTX_DAG_ID",
    "AIRFLOW_CTX_DAG_RUN_ID",
    "AIRFLOW_CTX_TASK_ID",
    "BITBUCKET_BUILD_NUMBER",
    "BITBUCKET_COMMIT",
    "BITBUCKET_REPO_FULL_NAME",
    "BUILDKITE_BUILD_NUMBER",
    "BUILDKITE_BUILD_URL",
    "BUILDKITE_PIPELINE_SLUG",
    "BUILD_BUILDID",
    "BUILD_DEFINITIONNAME",
    "BUILD_NUMBER",
    "BUILD_URL",
    "CI_COMMIT_REF_NAME",
    "CI_COMMIT_SHA",
    "CI_JOB_ID",
    "CI_JOB_NAME",
    "CI_JOB_URL",
    "CI_PIPELINE_ID",
    "CI_PIPELINE_URL",
    "CI_PROJECT_PATH",
    "CIRCLE_BUILD_NUM",
    "CIRCLE_BUILD_URL",
    "CIRCLE_SHA1",
    "GITHUB_ACTOR",
    "GITHUB_EVENT_NAME",
    "GITHUB_JOB",
    "GITHUB_REF",
    "GITHUB_REPOSITORY",
    "GITHUB_RUN_ATTEMPT",
    "GITHUB_RUN_ID",
    "GITHUB_RUN_NUMBER",
    "GITHUB_SERVER_URL",
    "GITHUB_SHA",
    "GITHUB_WORKFLOW",
    "GITLAB_USER_LOGIN",
    "GIT_BRANCH",
    "GIT_COMMIT",
    "JOB_NAME",
    "KUBEFLOW_RUN_ID",
    "LSB_JOBID",
    "PBS_JOBID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ID",
    "SLURM_JOB_NAME",
    "SLURM_NNODES",
    "SLURM_NTASKS",
];

/// How others call the experiment, the most telling first.
pub const EXPERIMENTS: [&str; 3] =
    ["MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "COMET_PROJECT_NAME"];

/// Characters that are kept of a value.
const VALUE_CHARACTERS_MAX: usize = 1_000;

/// Those of `names` that are set and say something.
pub fn pick(names: &[&str], variable: &dyn Fn(&str) -> Option<OsString>) -> Map<String, Value> {
    let told = names.iter().filter_map(|name| {
        let value = variable(name)?.to_string_lossy().into_owned();
        let shown: String = redact::text(&value).chars().take(VALUE_CHARACTERS_MAX).collect();
        (!shown.is_empty()).then(|| ((*name).to_owned(), Value::String(shown)))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_listed_and_no_secret_is_told() {
        let variable = |name: &str| {
            let value = match name {
                "BUILD_URL" => "https://ann:hunter2@ci.example.org/job/7",
                "SLURM_JOB_ID" => "77",
                "GITHUB_TOKEN" | "AWS_SECRET_ACCESS_KEY" => "secret",
                "JOB_NAME" => "",
                _ => return None,
            };
            Some(value.into())
        };
        let expected = json!({"BUILD_URL": "https://ci.example.org/job/7", "SLURM_JOB_ID": "77"});
        assert_eq!(Value::Object(pick(&JOBS, &variable)), expected);
        assert_eq!(
            pick(&["JOB_NAME"], &|_| Some("x".repeat(5_000).into()))["JOB_NAME"]
                .as_str()
                .unwrap()
                .len(),
            1_000
        );
    }

    #[test]
    fn no_listed_name_is_that_of_a_secret() {
        let all = [&SEEDS[..], &SETTINGS, &JOBS, &EXPERIMENTS].concat();
        for name in all {
            assert!(!redact::is_secret_name(name), "{name}");
        }
    }
}
