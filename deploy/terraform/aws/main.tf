# A bucket for the lake, and a role that may do what a run needs there and no more: the actions are those of
# ../../aws/policy.json, which the tests try one by one.
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
  description = "Who may take the role, as the JSON of its trust policy: that of the cluster's or GitHub's OIDC provider, say."
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

# The rules of ../../aws/lifecycle.json. What a killed run has left of a large object is not listed, and paid for; where the
# bucket keeps versions, so is every lease that was renewed (ten a minute), and every file that was replaced.
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

# aws, but in China aws-cn, and in GovCloud aws-us-gov.
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
