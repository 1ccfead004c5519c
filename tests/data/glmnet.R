# Reference fits of the R package glmnet (4.1-6) for the tests in Python.
#
#   Rscript tests/data/glmnet.R IN OUT
#
# IN holds <name>.csv of the data sets of scikit-learn (features, then y; no header),
# which tests/data/glmnet.py exports. OUT receives <name>.csv of glmnet's own example
# data, same layout, versions.json, and <case>.json of every case.
# tests/data/glmnet.py calls this script and packs what it wrote: run that one instead.

suppressPackageStartupMessages(library(glmnet))

folders <- commandArgs(trailingOnly = TRUE)
stopifnot(length(folders) == 2, packageVersion("glmnet") >= "4.1")

# JSON, numbers with the 17 digits that give a double back; a matrix is a list of rows.
json <- function(value) {
  if (is.null(value)) return("null")
  if (is.list(value)) {
    fields <- paste0('"', names(value), '": ', vapply(value, json, ""))
    return(paste0("{", paste(fields, collapse = ", "), "}"))
  }
  if (is.matrix(value)) {
    return(paste0("[", paste(apply(value, 1, json), collapse = ", "), "]"))
  }
  if (is.character(value)) {
    text <- paste0('"', value, '"')
  } else if (is.logical(value)) {
    text <- tolower(as.character(value))
  } else {
    text <- sub("Inf", "Infinity", formatC(value, digits = 17, format = "g", width = 1))
  }
  if (length(value) == 1) return(text)
  paste0("[", paste(text, collapse = ", "), "]")
}

example <- function(name, rows = NULL) {
  data(list = name, package = "glmnet", envir = environment())
  data <- get(name)
  x <- unname(data$x)
  y <- as.numeric(data$y)
  if (!is.null(rows)) {
    x <- x[seq(rows), ]
    y <- y[seq(rows)]
  }
  table <- apply(cbind(x, y), 2, formatC, digits = 17, format = "g", width = 1)
  write.table(table, file.path(folders[2], paste0(name, ".csv")),
    sep = ",", quote = FALSE, row.names = FALSE, col.names = FALSE)
  list(x = x, y = y)
}

exported <- function(name) {
  table <- read.csv(file.path(folders[1], paste0(name, ".csv")),
    header = FALSE, colClasses = "numeric")
  table <- unname(as.matrix(table))
  p <- ncol(table) - 1
  list(x = table[, seq(p)], y = table[, p + 1])
}

sets <- list(
  QuickStartExample = example("QuickStartExample"),
  BinomialExample = example("BinomialExample"),
  MultinomialExample = example("MultinomialExample", 300),
  PoissonExample = example("PoissonExample", 300),
  diabetes = exported("diabetes"),
  breast_cancer = exported("breast_cancer"),
  wine = exported("wine"),
  digits = exported("digits")
)

# Fits one case and writes it. `keep` indices spread over the grid, or those of the
# case `like`, get coefficients; `as_function` passes family() for "family", which is
# another program inside glmnet.
kept <- list()
case <- function(name, set, family, ..., keep = 8, like = NULL, as_function = FALSE,
                 thresh = 1e-20) {
  arguments <- list(...)
  data <- sets[[set]]
  how <- if (as_function) get(family)() else family
  seconds <- system.time(fit <- do.call(glmnet, c(
    list(data$x, data$y, family = how, thresh = thresh, maxit = 1e8), arguments)))
  size <- length(fit$lambda)
  at <- if (is.null(like)) round(seq(1, size, length.out = keep)) else kept[[like]]
  kept[[name]] <<- at
  several <- is.list(fit$beta)
  a0 <- if (several) t(unname(fit$a0[, at])) else as.numeric(fit$a0[at])
  if (several) {
    # One row per kept lambda, p * K numbers with the class running fastest.
    beta <- t(vapply(at, function(i) {
      as.vector(t(vapply(fit$beta, function(b) as.numeric(b[, i]),
        numeric(ncol(data$x)))))
    }, numeric(ncol(data$x) * length(fit$beta))))
  } else {
    beta <- t(unname(as.matrix(fit$beta[, at])))
  }
  names(arguments) <- gsub(".", "_", names(arguments), fixed = TRUE)
  out <- list(
    name = name, data = set, family = family, family_function = as_function,
    thresh = thresh, arguments = arguments, classes = length(fit$beta) * several,
    nulldev = fit$nulldev, lambda = fit$lambda, df = as.numeric(fit$df),
    dev_ratio = fit$dev.ratio, at = at - 1, intercept = a0, coef = beta
  )
  if (several) out$dfmat <- unname(fit$dfmat)
  writeLines(json(out), file.path(folders[2], paste0(name, ".json")))
  cat(sprintf("%-40s %3d lambdas, jerr %d, passes %d, %.1f s\n", name, size, fit$jerr,
    fit$npasses, seconds[["elapsed"]]))
}

writeLines(json(list(
  glmnet = as.character(packageVersion("glmnet")), R = as.character(getRversion())
)), file.path(folders[2], "versions.json"))

weights <- function(n) 0.5 + ((seq(n) * 7) %% 5) / 2
offset <- function(n) round(0.5 * sin(seq(n)), 3)

# Gaussian.
quick <- function(name, ...) case(name, "QuickStartExample", "gaussian", ...)
factors <- rep(1, 20)
factors[c(1, 7)] <- 0
factors[c(2, 8, 9)] <- 0.5
factors[c(3, 10, 14)] <- 2
factors[5] <- Inf
quick("gaussian_lasso", standardize = TRUE)
quick("gaussian_lasso_raw", standardize = FALSE)
quick("gaussian_enet_function_raw", alpha = 0.5, standardize = FALSE,
  as_function = TRUE)
quick("gaussian_enet_string_raw", alpha = 0.5, standardize = FALSE)
quick("gaussian_ridge_function_raw", alpha = 0, standardize = FALSE,
  as_function = TRUE)
quick("gaussian_weights", weights = weights(100), standardize = TRUE)
quick("gaussian_weights_raw", weights = weights(100), standardize = FALSE)
quick("gaussian_offset", offset = offset(100), standardize = TRUE)
quick("gaussian_factors", penalty.factor = factors, standardize = TRUE)
quick("gaussian_nonnegative", lower.limits = 0, standardize = TRUE)
quick("gaussian_limits", lower.limits = -0.3, upper.limits = 0.2, standardize = TRUE)
quick("gaussian_no_intercept", intercept = FALSE, standardize = TRUE)
quick("gaussian_no_intercept_raw", intercept = FALSE, standardize = FALSE)

# Binomial.
binomial_case <- function(name, ...) case(name, "BinomialExample", "binomial", ...)
factors <- rep(1, 30)
factors[c(2, 9, 20)] <- 0
factors[c(4, 25)] <- 1.5
binomial_case("binomial_lasso", standardize = TRUE)
binomial_case("binomial_lasso_raw", standardize = FALSE)
binomial_case("binomial_enet_raw", alpha = 0.3, standardize = FALSE)
binomial_case("binomial_weights_offset", weights = weights(100), offset = offset(100),
  standardize = TRUE)
binomial_case("binomial_factors", penalty.factor = factors, standardize = TRUE)

# Multinomial.
several <- function(name, ...) case(name, "MultinomialExample", "multinomial", ...)
several("multinomial_lasso", standardize = TRUE)
several("multinomial_lasso_raw", standardize = FALSE)
several("multinomial_grouped", type.multinomial = "grouped", standardize = TRUE)
several("multinomial_grouped_raw", type.multinomial = "grouped", standardize = FALSE)
several("multinomial_enet_raw", alpha = 0.5, standardize = FALSE)

# Poisson.
counts <- function(name, ...) case(name, "PoissonExample", "poisson", ...)
counts("poisson_lasso", standardize = TRUE)
counts("poisson_lasso_raw", standardize = FALSE)
counts("poisson_weights_offset", weights = weights(300), offset = offset(300),
  standardize = TRUE)
counts("poisson_enet_raw", alpha = 0.5, standardize = FALSE)

# scikit-learn's data. Tighter thresholds than these do not converge, or take minutes.
case("diabetes_lasso", "diabetes", "gaussian", standardize = TRUE)
case("breast_cancer_enet", "breast_cancer", "binomial", alpha = 0.5,
  standardize = TRUE)
case("breast_cancer_enet_default", "breast_cancer", "binomial", alpha = 0.5,
  standardize = TRUE, like = "breast_cancer_enet", thresh = 1e-7)
case("wine_lasso", "wine", "multinomial", standardize = TRUE, thresh = 1e-16)
case("wine_grouped", "wine", "multinomial", type.multinomial = "grouped",
  standardize = TRUE, thresh = 1e-16)
case("digits_lasso_raw", "digits", "multinomial", standardize = FALSE, keep = 5,
  thresh = 1e-14)
case("digits_lasso_raw_default", "digits", "multinomial", standardize = FALSE,
  like = "digits_lasso_raw", thresh = 1e-7)
