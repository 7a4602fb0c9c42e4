# A bucket for the lake, and a service account with the least permissions that a run needs: those of ../../gcp/role.yaml.
terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.0"
    }
  }
}

variable "project" {
  type = string
}

variable "bucket" {
  type        = string
  description = "The bucket's name."
}

variable "prefix" {
  type        = string
  default     = "decagon"
  description = "Where in the bucket the lake is: --lake gs://BUCKET/PREFIX."
}

variable "location" {
  type    = string
  default = "US"
}

variable "workload" {
  type        = string
  default     = "default/decagon-lake"
  description = "The Kubernetes service account that runs it, as NAMESPACE/NAME."
}

locals {
  role = yamldecode(file("${path.module}/../../gcp/role.yaml"))
}

resource "google_storage_bucket" "lake" {
  project                     = var.project
  name                        = var.bucket
  location                    = var.location
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # The rules of ../../gcp/lifecycle.json. The bucket charges for the unfinished uploads of a killed run, though it does not
  # list them. If it keeps versions, it also charges for every renewed lease (ten a minute) and every replaced file.
  lifecycle_rule {
    condition {
      age = 1
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }

  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 1
      matches_prefix             = ["${var.prefix}/_state/leases/"]
    }
    action {
      type = "Delete"
    }
  }

  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 30
      matches_prefix             = ["${var.prefix}/"]
    }
    action {
      type = "Delete"
    }
  }
}

resource "google_project_iam_custom_role" "lake" {
  project     = var.project
  role_id     = "decagonLake"
  title       = local.role.title
  description = local.role.description
  stage       = local.role.stage
  permissions = local.role.includedPermissions
}

resource "google_service_account" "lake" {
  project      = var.project
  account_id   = "decagon-lake"
  display_name = local.role.title
}

resource "google_storage_bucket_iam_member" "lake" {
  bucket = google_storage_bucket.lake.name
  role   = google_project_iam_custom_role.lake.id
  member = "serviceAccount:${google_service_account.lake.email}"
}

resource "google_service_account_iam_member" "workload" {
  service_account_id = google_service_account.lake.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.workload}]"
}

output "service_account" {
  value = google_service_account.lake.email
}
