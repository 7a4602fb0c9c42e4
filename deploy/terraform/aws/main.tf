# A bucket for the lake, and a role with the least permissions that a run needs: those of ../../aws/policy.json, which the
# tests try one by one.
terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "bucket" {
  type        = string
  description = "The bucket's name."
}

variable "prefix" {
  type        = string
  default     = "decagon"
  description = "Where in the bucket the lake is: --lake s3://BUCKET/PREFIX."
}

variable "trust_policy" {
  type        = string
  description = "Who may assume the role, as the JSON of its trust policy: the cluster's or GitHub's OIDC provider, for example."
}

resource "aws_s3_bucket" "lake" {
  bucket = var.bucket
}

resource "aws_s3_bucket_public_access_block" "lake" {
  bucket                  = aws_s3_bucket.lake.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# The rules of ../../aws/lifecycle.json. The bucket charges for the unfinished uploads of a killed run, though it does not
# list them. If it keeps versions, it also charges for every renewed lease (ten a minute) and every replaced file.
resource "aws_s3_bucket_lifecycle_configuration" "lake" {
  bucket = aws_s3_bucket.lake.id

  rule {
    id     = "unfinished-uploads"
    status = "Enabled"

    filter {
      prefix = "${var.prefix}/"
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  rule {
    id     = "old-leases"
    status = "Enabled"

    filter {
      prefix = "${var.prefix}/_state/leases/"
    }

    noncurrent_version_expiration {
      noncurrent_days = 1
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  rule {
    id     = "replaced-files"
    status = "Enabled"

    filter {
      prefix = "${var.prefix}/"
    }

    noncurrent_version_expiration {
      noncurrent_days = 30
    }

    expiration {
      expired_object_delete_marker = true
    }
  }
}

# aws; in China aws-cn, in GovCloud aws-us-gov.
data "aws_partition" "current" {}

locals {
  template = replace(replace(file("${path.module}/../../aws/policy.json"), "BUCKET", var.bucket), "PREFIX", var.prefix)
  policy   = replace(local.template, "arn:aws:", "arn:${data.aws_partition.current.partition}:")
}

resource "aws_iam_role" "lake" {
  name                 = "decagon-lake"
  assume_role_policy   = var.trust_policy
  max_session_duration = 21600
}

resource "aws_iam_role_policy" "lake" {
  name   = "decagon-lake"
  role   = aws_iam_role.lake.id
  policy = local.policy
}

output "role_arn" {
  value = aws_iam_role.lake.arn
}
