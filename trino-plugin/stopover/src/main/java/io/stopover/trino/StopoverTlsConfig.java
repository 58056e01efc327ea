/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino;

import io.airlift.configuration.Config;
import io.airlift.configuration.ConfigDescription;
import io.airlift.configuration.ConfigSecuritySensitive;
import io.airlift.configuration.validation.FileExists;
import jakarta.validation.constraints.AssertTrue;

import java.io.File;
import java.util.Optional;

/** TLS trust and client certificate for {@code https} daemons. */
public class StopoverTlsConfig
{
    private Optional<File> truststorePath = Optional.empty();
    private Optional<String> truststorePassword = Optional.empty();
    private Optional<File> keystorePath = Optional.empty();
    private Optional<String> keystorePassword = Optional.empty();

    public Optional<@FileExists File> getTruststorePath()
    {
        return truststorePath;
    }

    @Config("stopover.tls.truststore-path")
    @ConfigDescription("Certificates trusted to authenticate daemons: PEM, PKCS12 or JKS")
    public StopoverTlsConfig setTruststorePath(File truststorePath)
    {
        this.truststorePath = Optional.ofNullable(truststorePath);
        return this;
    }

    public Optional<String> getTruststorePassword()
    {
        return truststorePassword;
    }

    @Config("stopover.tls.truststore-password")
    @ConfigSecuritySensitive
    @ConfigDescription("Password of the truststore; not used for PEM")
    public StopoverTlsConfig setTruststorePassword(String truststorePassword)
    {
        this.truststorePassword = Optional.ofNullable(truststorePassword);
        return this;
    }

    public Optional<@FileExists File> getKeystorePath()
    {
        return keystorePath;
    }

    @Config("stopover.tls.keystore-path")
    @ConfigDescription("Client certificate and key: PEM that contains both, PKCS12 or JKS")
    public StopoverTlsConfig setKeystorePath(File keystorePath)
    {
        this.keystorePath = Optional.ofNullable(keystorePath);
        return this;
    }

    public Optional<String> getKeystorePassword()
    {
        return keystorePassword;
    }

    @Config("stopover.tls.keystore-password")
    @ConfigSecuritySensitive
    @ConfigDescription("Password of the keystore, or of the encrypted key in PEM")
    public StopoverTlsConfig setKeystorePassword(String keystorePassword)
    {
        this.keystorePassword = Optional.ofNullable(keystorePassword);
        return this;
    }

    @AssertTrue(message =
            "stopover.tls.truststore-password is set but stopover.tls.truststore-path is not")
    public boolean isTruststorePasswordUsed()
    {
        return truststorePassword.isEmpty() || truststorePath.isPresent();
    }

    @AssertTrue(message =
            "stopover.tls.keystore-password is set but stopover.tls.keystore-path is not")
    public boolean isKeystorePasswordUsed()
    {
        return keystorePassword.isEmpty() || keystorePath.isPresent();
    }
}
